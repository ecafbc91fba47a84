//! What Linux says of a block device: whether it is a card that may be written.
//!
//! Sources: Linux, Documentation/ABI/stable/sysfs-block (`size` in 512-byte sectors, `removable`, `ro`, `holders`,
//! `partition`), proc_pid_mountinfo(5) (third field: the device's numbers). The slot of a built-in reader says that it is
//! not removable; that its card is one is said by `device/type`, which is `SD` there and `MMC` for soldered memory
//! (Documentation/ABI/testing/sysfs-bus-mmc).

use anyhow::{Context, Result, bail};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// What reads past the cache have to be aligned to.
pub const ALIGN: usize = 4096;

/// Where Linux says it.
pub struct Machine {
    sys: PathBuf,
    mounts: PathBuf,
    swaps: PathBuf,
}

/// What is to be written.
#[derive(Debug)]
pub struct Target {
    /// Its path.
    pub path: PathBuf,
    /// What it is, for people.
    title: String,
    /// How much it holds; an ordinary file grows.
    bytes: Option<u64>,
    /// Why it may not be written at all.
    impossible: Option<String>,
    /// Why it may be written with `--force` only.
    doubts: Vec<String>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path.display(), self.title)
    }
}

impl Target {
    /// Whether so many bytes may be written there.
    pub fn admit(&self, image: u64, force: bool) -> Result<()> {
        let device = self.path.display();
        if let Some(why) = &self.impossible {
            bail!("{device} {why}");
        }
        if let Some(bytes) = self.bytes.filter(|&bytes| bytes < image) {
            bail!(
                "{device} has {bytes} bytes and the image {image}: make the image with `--size`, at most {} MiB here",
                bytes >> 20
            );
        }
        if !self.doubts.is_empty() && !force {
            bail!("{device} {}: if it is what you mean, add --force", self.doubts.join(", and "));
        }
        Ok(())
    }
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        Self { sys: "/sys".into(), mounts: "/proc/self/mountinfo".into(), swaps: "/proc/swaps".into() }
    }

    /// Looks at a device, or at a file that stands for one.
    pub fn look(&self, path: &Path) -> Result<Target> {
        let data = fs::metadata(path).with_context(|| format!("there is no device {}", path.display()))?;
        match numbers(&data) {
            Some(numbers) => self.block_device(path, &numbers),
            None if data.is_file() => Ok(Target {
                path: path.into(),
                title: "an ordinary file".into(),
                bytes: None,
                impossible: None,
                doubts: vec!["is an ordinary file and no device".into()],
            }),
            None => bail!("{} is no block device: `lsblk` lists them", path.display()),
        }
    }

    /// Disks that could be written without `--force`.
    pub fn cards(&self) -> Vec<Target> {
        let disks = fs::read_dir(self.sys.join("block")).into_iter().flatten().flatten();
        let mut cards: Vec<Target> = disks
            .filter_map(|disk| {
                let numbers = fs::read_to_string(disk.path().join("dev")).ok()?;
                self.block_device(&Path::new("/dev").join(disk.file_name()), numbers.trim()).ok()
            })
            .filter(|target| target.admit(0, false).is_ok())
            .collect();
        cards.sort_by(|one, other| one.path.cmp(&other.path));
        cards
    }

    /// Looks at the block device with these numbers, "8:16".
    fn block_device(&self, path: &Path, numbers: &str) -> Result<Target> {
        let folder = self.sys.join("dev/block").join(numbers);
        let folder = folder.canonicalize().with_context(|| {
            format!("the system says nothing of {}: is {} mounted?", path.display(), self.sys.display())
        })?;
        let word = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default().trim().to_owned();
        let bytes = word("size").parse::<u64>().unwrap_or(0).saturating_mul(512);
        let mut doubts = Vec::new();
        let is_partition = folder.join("partition").exists();
        let disk = if is_partition { folder.parent().unwrap_or(&folder) } else { &folder };
        let of_disk = |name: &str| fs::read_to_string(disk.join(name)).unwrap_or_default().trim().to_owned();
        if is_partition {
            let whole = disk.file_name().unwrap_or_default().to_string_lossy();
            doubts.push(format!("is a partition, and the image is that of a whole card, /dev/{whole}"));
        }
        if of_disk("removable") != "1" && of_disk("device/type") != "SD" {
            doubts.push("is not removable".into());
        }
        doubts.extend(self.uses(disk));
        let title = [of_disk("device/vendor"), of_disk("device/model"), of_disk("device/name")];
        let title =
            title.iter().map(String::as_str).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        let title = if title.is_empty() { "no name".to_owned() } else { title };
        let impossible = match (bytes, word("ro").as_str()) {
            (0, _) => Some("has no card in it".into()),
            (_, "1") => Some("is write-protected: look at the card's switch".into()),
            _ => None,
        };
        let title = format!("{title}, {:.1} GB", bytes as f64 / 1e9);
        Ok(Target { path: path.into(), title, bytes: Some(bytes), impossible, doubts })
    }

    /// What uses a disk or one of its partitions.
    fn uses(&self, disk: &Path) -> Vec<String> {
        let mounts = fs::read_to_string(&self.mounts).unwrap_or_default();
        let swaps = fs::read_to_string(&self.swaps).unwrap_or_default();
        let inside = fs::read_dir(disk).into_iter().flatten().flatten().map(|entry| entry.path());
        let partitions = inside.filter(|path| path.join("partition").exists());
        let mut uses = Vec::new();
        for part in std::iter::once(disk.to_path_buf()).chain(partitions) {
            let numbers = fs::read_to_string(part.join("dev")).unwrap_or_default();
            let device = format!("/dev/{}", part.file_name().unwrap_or_default().to_string_lossy());
            for mount in mounts.lines() {
                // 36 35 98:0 /root /mnt options … - type source options
                let (head, tail) = mount.split_once(" - ").unwrap_or((mount, ""));
                let head: Vec<_> = head.split(' ').collect();
                let is_it =
                    head.get(2) == Some(&numbers.trim()) || tail.split(' ').nth(1) == Some(device.as_str());
                if let (true, Some(place)) = (is_it, head.get(4)) {
                    uses.push(format!("is mounted ({device} on {place})"));
                }
            }
            if swaps.lines().any(|line| line.split_whitespace().next() == Some(device.as_str())) {
                uses.push(format!("is swap space ({device})"));
            }
            let holders = fs::read_dir(part.join("holders")).into_iter().flatten().flatten();
            uses.extend(holders.map(|holder| format!("is used by {}", holder.file_name().to_string_lossy())));
        }
        uses
    }
}

/// A block device's numbers, as /sys writes them.
#[cfg(target_os = "linux")]
fn numbers(data: &fs::Metadata) -> Option<String> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let device = data.rdev();
    data.file_type()
        .is_block_device()
        .then(|| format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
}

#[cfg(not(target_os = "linux"))]
fn numbers(_: &fs::Metadata) -> Option<String> {
    None
}

/// Has the system refuse a block device that something else uses: open(2), O_EXCL without O_CREAT.
pub fn exclusively(options: &mut OpenOptions) {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(rustix::fs::OFlags::EXCL.bits().cast_signed());
    }
    #[cfg(not(target_os = "linux"))]
    let _ = options;
}

/// Opens a device to be read itself, not what the system remembers of it; where that is not to be had, as for files in
/// memory, after telling the system to forget.
pub fn open_past_the_cache(path: &Path) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        if let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(path) {
            return Ok(file);
        }
        let file = File::open(path)?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(file)
    }
    #[cfg(not(target_os = "linux"))]
    File::open(path)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::project::Scratch;
    use std::os::unix::fs::symlink;

    /// A machine whose /sys has a USB reader with a card of two partitions (8:16), a disk (8:0), a card in a built-in
    /// slot (179:0) and soldered memory (179:32).
    struct Faked(Scratch);

    impl Faked {
        fn new() -> Self {
            let faked = Self(Scratch::new().unwrap());
            for (numbers, folder, files) in [
                (
                    "8:16",
                    "usb1/block/sdb",
                    "size 62333952,removable 1,ro 0,device/vendor Generic,device/model STORAGE",
                ),
                ("8:17", "usb1/block/sdb/sdb1", "size 100000,partition 1,ro 0"),
                ("8:18", "usb1/block/sdb/sdb2", "size 100000,partition 2,ro 0"),
                ("8:0", "ata1/block/sda", "size 1000215216,removable 0,ro 0,device/model DISK"),
                (
                    "179:0",
                    "mmc0/block/mmcblk0",
                    "size 62333952,removable 0,ro 0,device/type SD,device/name SC32G",
                ),
                (
                    "179:32",
                    "mmc1/block/mmcblk1",
                    "size 30535680,removable 0,ro 0,device/type MMC,device/name BJTD4R",
                ),
            ] {
                faked.put(folder, &format!("dev {numbers},{files}"));
                let link = faked.path("sys/dev/block").join(numbers);
                fs::create_dir_all(link.parent().unwrap()).unwrap();
                symlink(faked.path("sys/devices").join(folder), link).unwrap();
                if !files.contains("partition ") {
                    let link = faked.path("sys/block").join(folder.rsplit('/').next().unwrap());
                    fs::create_dir_all(link.parent().unwrap()).unwrap();
                    symlink(faked.path("sys/devices").join(folder), link).unwrap();
                }
            }
            faked
        }
        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }
        fn put(&self, folder: &str, files: &str) {
            for (name, content) in files.split(',').filter_map(|file| file.split_once(' ')) {
                let file = self.path("sys/devices").join(folder).join(name);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, format!("{content}\n")).unwrap();
            }
        }
        fn machine(&self) -> Machine {
            Machine { sys: self.path("sys"), mounts: self.path("mounts"), swaps: self.path("swaps") }
        }
        /// What is said against writing a gigabyte there.
        fn said(&self, numbers: &str, force: bool) -> String {
            let target = self.machine().block_device(Path::new("/dev/card"), numbers);
            match target.and_then(|target| target.admit(1 << 30, force)) {
                Ok(()) => "nothing".into(),
                Err(error) => error.to_string(),
            }
        }
    }

    #[test]
    fn cards_are_written_and_disks_and_soldered_memory_with_force_only() {
        let faked = Faked::new();
        assert_eq!(faked.said("8:16", false), "nothing");
        assert_eq!(faked.said("179:0", false), "nothing");
        for numbers in ["8:0", "179:32"] {
            assert_eq!(
                faked.said(numbers, false),
                "/dev/card is not removable: if it is what you mean, add --force"
            );
            assert_eq!(faked.said(numbers, true), "nothing");
        }
        assert!(faked.said("1:1", true).contains("the system says nothing of /dev/card"));
    }

    #[test]
    fn cards_that_nothing_uses_are_listed() {
        let faked = Faked::new();
        let listed = || faked.machine().cards().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(listed(), ["/dev/mmcblk0 (SC32G, 31.9 GB)", "/dev/sdb (Generic STORAGE, 31.9 GB)"]);
        fs::write(faked.path("mounts"), "36 22 8:17 / /media/boot rw shared:1 - vfat /dev/sdb1 rw\n")
            .unwrap();
        assert_eq!(listed(), ["/dev/mmcblk0 (SC32G, 31.9 GB)"]);
    }

    #[test]
    fn what_uses_a_card_or_a_partition_of_it_is_named() {
        let faked = Faked::new();
        fs::write(
            faked.path("mounts"),
            "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n36 22 8:17 / /media/boot rw shared:1 - vfat /dev/sdb1 rw\n",
        )
        .unwrap();
        assert!(faked.said("8:16", false).contains("is mounted (/dev/sdb1 on /media/boot)"));
        assert_eq!(faked.said("8:16", true), "nothing");
        assert_eq!(faked.said("179:0", false), "nothing");
        // btrfs has numbers of its own: the source tells.
        fs::write(faked.path("mounts"), "36 22 0:40 /@ /data rw - btrfs /dev/sdb2 rw\n").unwrap();
        assert!(faked.said("8:16", false).contains("is mounted (/dev/sdb2 on /data)"));
        fs::remove_file(faked.path("mounts")).unwrap();
        fs::write(faked.path("swaps"), "Filename Type Size Used Priority\n/dev/sdb2 partition 8 0 -2\n")
            .unwrap();
        assert!(faked.said("8:16", false).contains("is swap space (/dev/sdb2)"));
        fs::remove_file(faked.path("swaps")).unwrap();
        fs::create_dir_all(faked.path("sys/devices/usb1/block/sdb/sdb1/holders/dm-0")).unwrap();
        assert!(faked.said("8:16", false).contains("is used by dm-0"));
    }

    #[test]
    fn a_partition_an_empty_slot_a_locked_card_and_a_small_one_are_told() {
        let faked = Faked::new();
        assert!(faked.said("8:17", true).contains("has 51200000 bytes and the image 1073741824"));
        faked.put("usb1/block/sdb/sdb1", "size 62000000");
        assert!(
            faked
                .said("8:17", false)
                .contains("is a partition, and the image is that of a whole card, /dev/sdb")
        );
        faked.put("usb1/block/sdb", "ro 1");
        assert!(faked.said("8:16", true).contains("is write-protected"));
        faked.put("usb1/block/sdb", "size 0");
        assert!(faked.said("8:16", true).contains("has no card in it"));
        faked.put("usb1/block/sdb", "ro 0,size 2000000");
        assert!(faked.said("8:16", true).contains("make the image with `--size`, at most 976 MiB here"));
    }
}
