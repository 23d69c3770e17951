//! What binds the service's processes to this one.
//!
//! Its standard input does it first: the system closes it when this program ends, however it ends,
//! and the service and its workers end within two seconds. On Windows a job object that is closed
//! with this process makes the system end them itself. Elsewhere a process group lets all of them be
//! killed at once, and keeps Ctrl-C of a terminal for this program.

use tokio::process::{Child, Command};

#[cfg(unix)]
pub(crate) use unix::Bound;
#[cfg(windows)]
pub(crate) use windows::Bound;

#[cfg(unix)]
mod unix {
    use super::{Child, Command};

    pub(crate) struct Bound {
        group: libc::pid_t,
    }

    impl Bound {
        pub(crate) fn prepare(command: &mut Command) {
            command.process_group(0);
        }

        pub(crate) fn around(child: &Child) -> std::io::Result<Bound> {
            let id = child.id().ok_or(std::io::ErrorKind::NotFound)?;
            Ok(Bound { group: id as libc::pid_t })
        }

        /// Kill all of them. Only while nobody has waited for the first of them: the number of the
        /// group is its, and may be given away afterwards.
        pub(crate) fn kill(&self) {
            // SAFETY: it takes two numbers; a group that is not there is an error that says nothing new.
            unsafe { libc::killpg(self.group, libc::SIGKILL) };
        }
    }
}

#[cfg(windows)]
mod windows {
    use super::{Child, Command};
    use std::io::{Error, ErrorKind, Result};
    use std::mem::size_of;
    use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
    use std::ptr::{from_ref, null};
    use windows_sys::Win32::System::JobObjects::{
        AssignProcessToJobObject, CreateJobObjectW, JobObjectExtendedLimitInformation,
        SetInformationJobObject, TerminateJobObject, JOBOBJECT_EXTENDED_LIMIT_INFORMATION,
        JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    };
    use windows_sys::Win32::System::Threading::CREATE_NO_WINDOW;

    pub(crate) struct Bound {
        job: OwnedHandle,
    }

    impl Bound {
        pub(crate) fn prepare(command: &mut Command) {
            command.creation_flags(CREATE_NO_WINDOW); // no console flashes up
        }

        /// A job around the child, and all that it starts from now on: it has just begun, and starts
        /// its workers much later.
        pub(crate) fn around(child: &Child) -> Result<Bound> {
            let process = child.raw_handle().ok_or(ErrorKind::NotFound)?;
            // SAFETY: no attributes and no name; the handle that comes back is ours alone.
            let job = unsafe { CreateJobObjectW(null(), null()) };
            if job.is_null() {
                return Err(Error::last_os_error());
            }
            // SAFETY: it is a handle, and nobody else closes it.
            let job = unsafe { OwnedHandle::from_raw_handle(job) };
            let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
            limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
            // SAFETY: the structure is of the class that is named, and of the size that is said.
            let set = unsafe {
                SetInformationJobObject(
                    job.as_raw_handle(),
                    JobObjectExtendedLimitInformation,
                    from_ref(&limits).cast(),
                    size_of::<JOBOBJECT_EXTENDED_LIMIT_INFORMATION>() as u32,
                )
            };
            // SAFETY: both handles are open: the job is ours, the process is the child's.
            if set == 0 || unsafe { AssignProcessToJobObject(job.as_raw_handle(), process) } == 0 {
                return Err(Error::last_os_error());
            }
            Ok(Bound { job })
        }

        /// Kill all of them.
        pub(crate) fn kill(&self) {
            // SAFETY: the handle is open as long as we are there.
            unsafe { TerminateJobObject(self.job.as_raw_handle(), 1) };
        }
    }
}
