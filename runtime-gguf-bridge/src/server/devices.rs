//! The accelerators that a `llama-server` sees; must not know what is to be put on them.

use std::{path::Path, time::Duration};

use super::{BridgeError, probe::probe};

/// How long it may take to list them. Unit: time. Default: 30 s. Origin: guess; a first CUDA or Metal start compiles
/// kernels. Cost of less: a machine taken for one without an accelerator.
const LIMIT: Duration = Duration::from_secs(30);

const MIB: u64 = 1 << 20;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// As `--device` takes it: `CUDA0`, `Metal`.
    pub name: String,
    /// As its maker calls it.
    pub description: String,
    /// Memory, in bytes.
    pub total: u64,
    /// Of it free, in bytes.
    pub free: u64,
}

/// Asks `binary`. None on CPU builds.
pub async fn devices(binary: &Path) -> Result<Vec<Device>, BridgeError> {
    Ok(parse(&probe(binary, "--list-devices", LIMIT).await?))
}

fn parse(said: &str) -> Vec<Device> {
    said.lines().skip_while(|line| !line.starts_with("Available devices")).skip(1).filter_map(device).collect()
}

/// `  CUDA0: NVIDIA H200 (143771 MiB, 142896 MiB free)`
fn device(line: &str) -> Option<Device> {
    let (name, rest) = line.strip_prefix("  ")?.split_once(": ")?;
    let (description, memory) = rest.trim_end().strip_suffix(" MiB free)")?.rsplit_once(" (")?;
    let (total, free) = memory.split_once(" MiB, ")?;
    let bytes = |mib: &str| mib.parse::<u64>().ok()?.checked_mul(MIB);
    Some(Device {
        name: name.to_owned(),
        description: description.to_owned(),
        total: bytes(total)?,
        free: bytes(free)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_devices_are_read_and_a_cpu_build_has_none() {
        assert_eq!(parse("Available devices:\n  (none)\n"), []);
        let said = "ggml_cuda_init: found 1 CUDA devices:\n  Device 0: NVIDIA H200, compute capability 9.0\nAvailable devices:\n  \
                    CUDA0: NVIDIA H200 (143771 MiB, 142896 MiB free)\n  Metal: Apple M4 (Max) (100 MiB, 7 MiB free)\n";
        let found = parse(said);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].name.as_str(), found[0].total), ("CUDA0", 143_771 * MIB));
        assert_eq!((found[1].description.as_str(), found[1].free), ("Apple M4 (Max)", 7 * MIB));
    }
}
