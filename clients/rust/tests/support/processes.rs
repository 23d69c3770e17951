//! The processes of this machine, and the end of one.

/// One that runs. Its number and the time of its birth together are its own: another may get the
/// number later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    pub id: u32,
    pub birth: u64,
    pub parent: u32,
}

#[cfg(target_os = "linux")]
mod system {
    use super::Process;

    pub fn running() -> Vec<Process> {
        let names = std::fs::read_dir("/proc").unwrap();
        names.filter_map(|entry| stat(entry.unwrap().file_name().to_str()?.parse().ok()?)).collect()
    }

    fn stat(id: u32) -> Option<Process> {
        let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let (parent, birth) = (fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?);
        (fields[0] != "Z").then_some(Process { id, birth, parent })
    }

    pub fn kill(id: u32) {
        // SAFETY: two numbers.
        assert_eq!(unsafe { libc::kill(id as i32, libc::SIGKILL) }, 0);
    }
}

#[cfg(windows)]
mod system {
    use super::Process;
    use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
    use windows_sys::Win32::Foundation::{FILETIME, INVALID_HANDLE_VALUE, STILL_ACTIVE};
    use windows_sys::Win32::System::Diagnostics::ToolHelp::{
        CreateToolhelp32Snapshot, Process32FirstW, Process32NextW, PROCESSENTRY32W,
        TH32CS_SNAPPROCESS,
    };
    use windows_sys::Win32::System::Threading::{
        GetExitCodeProcess, GetProcessTimes, OpenProcess, TerminateProcess,
        PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_TERMINATE,
    };

    pub fn running() -> Vec<Process> {
        // SAFETY: two numbers; the handle that comes back is ours alone.
        let handle = unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0) };
        assert_ne!(handle, INVALID_HANDLE_VALUE);
        // SAFETY: it is a handle, and nobody else closes it.
        let all = unsafe { OwnedHandle::from_raw_handle(handle) };
        let mut entry = PROCESSENTRY32W {
            dwSize: size_of::<PROCESSENTRY32W>() as u32,
            ..PROCESSENTRY32W::default()
        };
        let mut found = Vec::new();
        // SAFETY: the handle is open, and the entry says its own size.
        let mut more = unsafe { Process32FirstW(all.as_raw_handle(), &mut entry) };
        while more != 0 {
            let (id, parent) = (entry.th32ProcessID, entry.th32ParentProcessID);
            found.extend(birth(id).map(|birth| Process { id, birth, parent }));
            // SAFETY: as above.
            more = unsafe { Process32NextW(all.as_raw_handle(), &mut entry) };
        }
        found
    }

    /// When a process began; `None` if it runs no more, or is not ours to look at.
    fn birth(id: u32) -> Option<u64> {
        let process = open(id, PROCESS_QUERY_LIMITED_INFORMATION)?;
        let [mut began, mut ended, mut kernel, mut user] = [FILETIME::default(); 4];
        let (handle, mut code) = (process.as_raw_handle(), 0);
        // SAFETY: the handle is open, and each place is of the type that is written to it.
        let told = unsafe {
            GetExitCodeProcess(handle, &mut code) != 0
                && GetProcessTimes(handle, &mut began, &mut ended, &mut kernel, &mut user) != 0
        };
        let birth = u64::from(began.dwHighDateTime) << 32 | u64::from(began.dwLowDateTime);
        (told && code == STILL_ACTIVE as u32).then_some(birth)
    }

    fn open(id: u32, right: u32) -> Option<OwnedHandle> {
        // SAFETY: three numbers; the handle that comes back is ours alone.
        let handle = unsafe { OpenProcess(right, 0, id) };
        // SAFETY: it is a handle, and nobody else closes it.
        (!handle.is_null()).then(|| unsafe { OwnedHandle::from_raw_handle(handle) })
    }

    pub fn kill(id: u32) {
        let process = open(id, PROCESS_TERMINATE).unwrap();
        // SAFETY: the handle is open.
        assert_ne!(unsafe { TerminateProcess(process.as_raw_handle(), 1) }, 0);
    }
}

/// Kill a process, as its user or the system would.
pub use system::kill;
/// All that this program may look at.
pub use system::running;
