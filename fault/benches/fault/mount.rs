//! A tmpfs of its own, with pages of one size.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Mounted until dropped.
pub struct Mount(PathBuf);

impl Mount {
    /// A tmpfs with 2 MiB pages, or with none.
    ///
    /// # Panics
    /// Where it can not be mounted: that takes root.
    pub fn tmpfs(huge: bool) -> Self {
        let path = std::env::temp_dir().join(format!("daxstore-bench-{}-{huge}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory to mount on");
        let options = if huge { c"huge=always,size=90%" } else { c"huge=never,size=90%" };
        let target = CString::new(path.as_os_str().as_bytes()).expect("a path");
        // SAFETY: the arguments are C strings that outlive the call.
        let done = unsafe {
            libc::mount(c"tmpfs".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), 0, options.as_ptr().cast())
        };
        assert_eq!(done, 0, "mounting a tmpfs: {}", std::io::Error::last_os_error());
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let target = CString::new(self.0.as_os_str().as_bytes()).expect("a path");
        // SAFETY: the argument is a C string that outlives the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        let _left = std::fs::remove_dir(&self.0);
    }
}
