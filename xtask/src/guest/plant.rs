//! Which rule of mappings is broken on purpose?
//!
//! `cargo xtask vm --plant NAME` builds the guest's programs with the feature `plant`, and the scripts pass the name on
//! in `PLANT`. A mistake that this program was not built to make is an error, so that none is taken for caught.

use crate::Result;

/// Makes the mistake that `PLANT` names, if it is one of mappings, on this thread from now on.
///
/// # Errors
/// It can not be made.
pub fn set() -> Result<()> {
    match std::env::var("PLANT").as_deref() {
        Err(_) | Ok("" | "assume") => Ok(()),
        Ok(name) => make(name),
    }
}

#[cfg(feature = "plant")]
fn make(name: &str) -> Result<()> {
    use daxstore_fault::mutation::{self, Mutation};
    let mutation = match name {
        "askew" => Mutation::Askew,
        "unregistered" => Mutation::Unregistered,
        _ => return Err(format!("no mistake {name}").into()),
    };
    mutation::set(Some(mutation));
    Ok(())
}

#[cfg(not(feature = "plant"))]
fn make(name: &str) -> Result<()> {
    Err(format!("the mistake {name} was not built in").into())
}
