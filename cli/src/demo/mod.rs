use crate::{
    args::Demo,
    failure::Result,
    output::{Output, Verdict},
};
pub fn demo(_: &Demo, _: &mut Output) -> Result<Verdict> {
    Ok(Verdict::Good)
}
