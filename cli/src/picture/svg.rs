//! How is an SVG document written?
//!
//! Invariant: text is escaped, so a file's name can not become markup.

use std::fmt::Write;

/// A document that grows by elements. Lengths are pixels.
pub struct Svg {
    body: String,
}

/// How text is set.
#[derive(Clone, Copy)]
pub struct Type {
    /// Height in pixels.
    pub size: f64,
    /// Colour.
    pub fill: &'static str,
    /// `start`, `middle` or `end`.
    pub anchor: &'static str,
    /// `normal` or `bold`.
    pub weight: &'static str,
}

/// A rectangle's place and size.
#[derive(Clone, Copy)]
pub struct Rect {
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Width.
    pub w: f64,
    /// Height.
    pub h: f64,
}

impl Svg {
    /// An empty document.
    pub fn new() -> Self {
        Self { body: String::new() }
    }

    /// Adds an element as it is. Writing to a `String` does not fail.
    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        let _ = self.body.write_fmt(element);
        self.body.push('\n');
    }

    /// A filled rectangle with round corners.
    pub fn rect(&mut self, at: Rect, radius: f64, fill: &str) {
        let Rect { x, y, w, h } = at;
        self.push(format_args!(
            r#"<rect x="{x:.2}" y="{y:.2}" width="{w:.2}" height="{h:.2}" rx="{radius}" fill="{fill}"/>"#
        ));
    }

    /// A rectangle that is only outlined.
    pub fn outline(&mut self, at: Rect, radius: f64, stroke: &str, width: f64) {
        let Rect { x, y, w, h } = at;
        self.push(format_args!(
            r#"<rect x="{x:.2}" y="{y:.2}" width="{w:.2}" height="{h:.2}" rx="{radius}" fill="none" stroke="{stroke}" stroke-width="{width}"/>"#
        ));
    }

    /// A line of text.
    pub fn text(&mut self, x: f64, y: f64, set: Type, text: &str) {
        let Type { size, fill, anchor, weight } = set;
        let text = escaped(text);
        self.push(format_args!(
            r#"<text x="{x:.2}" y="{y:.2}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" font-weight="{weight}">{text}</text>"#
        ));
    }

    /// Opens a group that shows `title` under the pointer.
    pub fn open(&mut self, title: &str) {
        let title = escaped(title);
        self.push(format_args!("<g><title>{title}</title>"));
    }

    /// Closes a group.
    pub fn close(&mut self) {
        self.push(format_args!("</g>"));
    }

    /// The whole document, `width` by `height`.
    pub fn document(self, width: f64, height: f64, title: &str, background: &str) -> String {
        let (title, body) = (escaped(title), self.body);
        format!(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0}" height="{height:.0}" viewBox="0 0 {width:.0} {height:.0}" font-family="Inter, 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif">
<title>{title}</title>
<rect width="100%" height="100%" fill="{background}"/>
{body}</svg>
"#
        )
    }
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => {
                safe.push('\u{fffd}')
            }
            letter => safe.push(letter),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_become_markup() {
        assert_eq!(escaped("<a href=\"x\">&\u{1b}"), "&lt;a href=&quot;x&quot;&gt;&amp;\u{fffd}");
    }
}
