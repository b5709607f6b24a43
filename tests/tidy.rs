//! Does the code keep the rules of the house?
//!
//! What a machine can check is checked here, over the text of the workspace: layers, where `unsafe` is, sizes, words
//! that must not stay, the tables of `docs/format.md`, links between the pages. Each rule is a function from text to
//! findings, and each has a test that it finds what it is for.

#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

mod tidy {
    pub mod format;
    pub mod layers;
    pub mod pages;
    pub mod sizes;
    pub mod text;
    pub mod words;
}

use tidy::text::Workspace;

/// Fails with one line a finding.
fn nothing(found: &[String]) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn a_module_names_lower_ranks_only() {
    nothing(&tidy::layers::check(&Workspace::read()));
}

#[test]
fn unsafe_is_where_its_page_says() {
    nothing(&tidy::words::check_unsafe(&Workspace::read()));
}

#[test]
fn files_and_functions_fit_the_head() {
    nothing(&tidy::sizes::check(&Workspace::read()));
}

#[test]
fn no_word_is_left_that_must_not_stay() {
    nothing(&tidy::words::check(&Workspace::read()));
}

#[test]
fn every_file_opens_with_its_question() {
    nothing(&tidy::words::check_openings(&Workspace::read()));
}

#[test]
fn the_format_page_draws_the_tables_of_the_code() {
    nothing(&tidy::format::check(&Workspace::read()));
}

#[test]
fn every_page_is_linked_and_every_link_leads_somewhere() {
    nothing(&tidy::pages::check(&Workspace::read()));
}
