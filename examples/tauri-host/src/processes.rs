//! Who descends from a process, to see that nobody outlives it. Linux only; elsewhere nobody is
//! looked at, and the report says so.

#[cfg(target_os = "linux")]
fn parent_and_birth(pid: u32) -> Option<(u32, u64, bool)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?, fields[0] == "Z"))
}

/// Process id and time of birth of all that descend from `pid`, itself included.
#[cfg(target_os = "linux")]
pub fn descendants(pid: u32) -> Vec<(u32, u64)> {
    let all: Vec<(u32, u32, u64)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|one| parent_and_birth(one).map(|(parent, birth, _)| (one, parent, birth)))
        .collect();
    let mut family: Vec<(u32, u64)> =
        all.iter().filter(|one| one.0 == pid).map(|one| (one.0, one.2)).collect();
    let mut seen = 0;
    while seen < family.len() {
        let parent = family[seen].0;
        family.extend(all.iter().filter(|one| one.1 == parent).map(|one| (one.0, one.2)));
        seen += 1;
    }
    family
}

/// Whether it is still there: the same process, and no zombie.
#[cfg(target_os = "linux")]
pub fn is_alive(process: (u32, u64)) -> bool {
    matches!(parent_and_birth(process.0), Some((_, birth, false)) if birth == process.1)
}

#[cfg(not(target_os = "linux"))]
pub fn descendants(_: u32) -> Vec<(u32, u64)> {
    Vec::new()
}

#[cfg(not(target_os = "linux"))]
pub fn is_alive(_: (u32, u64)) -> bool {
    false
}
