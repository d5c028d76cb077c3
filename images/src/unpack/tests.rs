//! Layers as hostile as they come, and layers as they should be, against real directories.

use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use corten_sys::Root;

use super::*;

/// A tar built header by header, so that it can be wrong.
#[derive(Default)]
struct Layer(Vec<u8>);

impl Layer {
    fn raw(
        mut self,
        typeflag: u8,
        path: &str,
        link: &str,
        content: &[u8],
        change: impl FnOnce(&mut ::tar::Header),
    ) -> Self {
        let mut header = ::tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.as_old_mut().linkflag = [typeflag];
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(tar::BLOCK), 0);
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.raw(b'0', path, "", content.as_bytes(), |_| {})
    }

    fn dir(self, path: &str) -> Self {
        self.raw(b'5', path, "", b"", |header| header.set_mode(0o755))
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.raw(b'2', path, target, b"", |_| {})
    }

    fn hardlink(self, path: &str, target: &str) -> Self {
        self.raw(b'1', path, target, b"", |_| {})
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut text = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..rest + 8).find(|n| rest + n.to_string().len() == *n).unwrap();
            text.extend_from_slice(format!("{length} {key}=").as_bytes());
            text.extend_from_slice(value);
            text.push(b'\n');
        }
        self.raw(b'x', "pax", "", &text, |_| {})
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * tar::BLOCK, 0);
        self.0
    }
}

fn unpack_into(root: &Path, bytes: &[u8], limits: Limits) -> Result<Unpacked, UnpackError> {
    let fd = Root::open_host(root).unwrap().into_fd();
    unpack(bytes, Digest::of(bytes), fd, limits)
}

/// Unpacks and fixes up over `lowers`, uppermost first.
fn layer_over(lowers: &[&Path], bytes: &[u8]) -> Result<tempfile::TempDir, UnpackError> {
    let directory = tempfile::tempdir().unwrap();
    let unpacked = unpack_into(directory.path(), bytes, Limits::default())?;
    let lowers: Vec<_> = lowers.iter().map(|lower| Root::open_host(lower).unwrap()).collect();
    apply_fixups(&Root::open_host(directory.path()).unwrap(), &unpacked.fixups, &lowers)?;
    Ok(directory)
}

fn layer(layer: Layer) -> Result<tempfile::TempDir, UnpackError> {
    layer_over(&[], &layer.end())
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 100];
    let length = rustix::fs::lgetxattr(path, name, &mut value).ok()?;
    Some(value[..length].to_vec())
}

fn is_whiteout(path: &Path) -> bool {
    path.symlink_metadata()
        .is_ok_and(|metadata| metadata.file_type().is_char_device() && metadata.rdev() == 0)
}

/// Device nodes, owners and trusted xattrs need root.
macro_rules! need_root {
    () => {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP: not root: device nodes, owners and trusted xattrs cannot be made");
            return;
        }
    };
}

#[test]
fn entries_of_every_kind() {
    need_root!();
    let made = layer(
        Layer::default()
            .dir("./")
            .raw(b'5', "d/", "", b"", |h| h.set_mode(0o1777))
            .raw(b'0', "d/setuid", "", b"program", |h| {
                h.set_mode(0o4755);
                h.set_uid(1000);
                h.set_gid(4_000_000_000);
            })
            .symlink("d/link", "/absolute/target")
            .hardlink("d/hard", "d/setuid")
            .raw(b'3', "d/null", "", b"", |h| {
                h.set_device_major(1).unwrap();
                h.set_device_minor(3).unwrap();
                h.set_mode(0o666);
            })
            .raw(b'4', "d/loop", "", b"", |h| {
                h.set_device_major(7).unwrap();
                h.set_device_minor(300).unwrap();
            })
            .raw(b'6', "d/fifo", "", b"", |h| h.set_mode(0o622))
            .file("d/later", "written after the directory"),
    )
    .unwrap();
    let path = |name: &str| made.path().join("d").join(name);
    let stat = |name: &str| path(name).symlink_metadata().unwrap();
    assert_eq!(
        (stat("setuid").mode(), stat("setuid").uid(), stat("setuid").gid()),
        (0o104_755, 1000, 4_000_000_000)
    );
    assert_eq!(stat("setuid").ino(), stat("hard").ino());
    assert_eq!(std::fs::read_link(path("link")).unwrap(), Path::new("/absolute/target"));
    assert_eq!((stat("null").mode(), stat("null").rdev()), (0o020_666, rustix::fs::makedev(1, 3)));
    assert_eq!((stat("loop").mode(), stat("loop").rdev()), (0o060_644, rustix::fs::makedev(7, 300)));
    assert_eq!(stat("fifo").mode(), 0o010_622);
    for name in ["setuid", "link", "null", "fifo", ""] {
        assert_eq!(stat(name).mtime(), 1_000_000_000, "mtime of {name:?}");
    }
    assert_eq!(stat("").mode(), 0o041_777);
}

#[test]
fn long_names_pax_times_and_negative_times() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let longer = "l".repeat(150);
    let made = layer(
        Layer::default()
            .raw(b'L', "././@LongLink", "", format!("{long}\0").as_bytes(), |_| {})
            .file("cut", "gnu")
            .pax(&[("path", longer.as_bytes()), ("mtime", b"-1.5"), ("comment", b"a\nb=c")])
            .file("cut", "pax")
            .raw(b'g', "global", "", b"13 comment=x\n", |_| {})
            .raw(b'K', "././@LongLink", "", format!("{long}\0").as_bytes(), |_| {})
            .symlink("link", "cut"),
    )
    .unwrap();
    assert_eq!(std::fs::read_to_string(made.path().join(&long)).unwrap(), "gnu");
    assert_eq!(std::fs::read_to_string(made.path().join(&longer)).unwrap(), "pax");
    let metadata = made.path().join(&longer).metadata().unwrap();
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (-2, 500_000_000));
    assert_eq!(std::fs::read_link(made.path().join("link")).unwrap(), Path::new(&long));
}

#[test]
fn xattrs_of_the_program_stay_and_those_that_steer_overlayfs_go() {
    need_root!();
    // VFS_CAP_REVISION_2, effective, CAP_NET_RAW.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let made = layer(
        Layer::default()
            .pax(&[
                ("SCHILY.xattr.security.capability", &capability),
                ("SCHILY.xattr.user.note", b"kept"),
                ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                ("SCHILY.xattr.user.overlay.opaque", b"y"),
                ("SCHILY.xattr.security.selinux", b"x"),
            ])
            .raw(b'0', "ping", "", b"x", |h| h.set_uid(7)),
    )
    .unwrap();
    let ping = made.path().join("ping");
    assert_eq!(xattr(&ping, "security.capability").as_deref(), Some(&capability[..]));
    assert_eq!(xattr(&ping, "user.note").as_deref(), Some(&b"kept"[..]));
    for dropped in ["trusted.overlay.redirect", "user.overlay.opaque", "security.selinux"] {
        assert_eq!(xattr(&ping, dropped), None, "{dropped}");
    }
}

#[test]
fn whiteouts_hide_lower_names_only() {
    need_root!();
    let made = layer(
        Layer::default()
            .file("gone/.wh.file", "")
            .dir("opaque/")
            .file("opaque/.wh..wh..opq", "")
            .file("opaque/new", "1")
            .file("own", "stays")
            .file(".wh.own", "")
            .dir("own-dir/")
            .file(".wh.own-dir", "")
            .file(".wh.anew", "")
            .dir("anew/")
            .file(".wh.passed", "")
            .file("passed/through", "1")
            .file(".wh..wh.plnk", ""),
    )
    .unwrap();
    let at = |name: &str| made.path().join(name);
    assert!(is_whiteout(&at("gone/file")));
    assert_eq!(std::fs::read_to_string(at("own")).unwrap(), "stays");
    for opaque in ["opaque", "own-dir", "anew", "passed"] {
        assert_eq!(xattr(&at(opaque), "trusted.overlay.opaque").as_deref(), Some(&b"y"[..]), "{opaque}");
    }
    let names = std::fs::read_dir(made.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().starts_with(".wh.")));
}

#[test]
fn later_entries_replace_earlier_ones_of_any_kind() {
    let made = layer(
        Layer::default()
            .file("a/x/y", "1")
            .file("a/x", "directory became file")
            .symlink("b", "a")
            .dir("b/")
            .file("b/in", "in a directory, not in a/")
            .file("c", "old")
            .symlink("c", "a/x"),
    )
    .unwrap();
    assert!(made.path().join("a/x").is_file());
    assert!(made.path().join("b/in").exists() && !made.path().join("a/in").exists());
    assert!(made.path().join("c").is_symlink());
}

#[test]
fn escape_by_dot_dot_is_refused() {
    for path in ["../evil", "a/../../evil", "/../evil", ".."] {
        let error = layer(Layer::default().file(path, "x")).unwrap_err();
        assert!(matches!(error, UnpackError::Escape { .. }), "{path}: {error}");
        assert!(error.to_string().contains("`..`") && error.to_string().contains(path), "{error}");
    }
    let error = layer(Layer::default().file("d/.wh...", "")).unwrap_err();
    assert!(matches!(error, UnpackError::Escape { .. }), "{error}");
}

#[test]
fn escape_by_absolute_path_lands_inside_the_image() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("evil");
    let made = layer(Layer::default().file(target.to_str().unwrap(), "x")).unwrap();
    assert!(!target.exists());
    assert!(made.path().join(target.strip_prefix("/").unwrap()).exists());
}

#[test]
fn cve_2021_32760_escape_by_symbolic_links_is_refused() {
    let outside = tempfile::tempdir().unwrap();
    let climbing = format!("../../../../../../../../../../{}", outside.path().display());
    let direct = Layer::default().symlink("out", &climbing).file("out/evil", "x");
    let chained =
        Layer::default().dir("d/").symlink("d/up", "..").symlink("out", "d/up/..").file("out/evil", "x");
    for (name, attack) in [("direct", direct), ("chained", chained)] {
        let error = layer(attack).unwrap_err();
        assert!(matches!(error, UnpackError::Escape { .. }), "{name}: {error}");
        assert!(error.to_string().contains("climbs above"), "{error}");
    }
    // An absolute link means the image's root, now as when the image runs.
    let absolute = outside.path().to_str().unwrap();
    let made = layer(Layer::default().symlink("out", absolute).file("out/evil", "x")).unwrap();
    assert!(made.path().join(&absolute[1..]).join("evil").exists());
    let endless = layer(Layer::default().symlink("a", "b").symlink("b", "a").file("a/x", "")).unwrap_err();
    assert!(endless.to_string().contains("40 symbolic links"), "{endless}");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn cve_2025_47290_a_file_is_never_written_through_a_link() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "untouched").unwrap();
    let before = victim.metadata().unwrap().mode();
    let link = victim.to_str().unwrap();
    let made = layer(
        Layer::default()
            .symlink("a", link)
            .raw(b'0', "a", "", b"overwritten", |h| h.set_mode(0o777))
            .symlink("dir", outside.path().to_str().unwrap())
            .raw(b'5', "dir", "", b"", |h| h.set_mode(0o777)),
    )
    .unwrap();
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!(victim.metadata().unwrap().mode(), before);
    assert!(made.path().join("a").is_file() && made.path().join("dir").is_dir());
}

#[test]
fn escape_by_hard_link_is_refused() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "secret").unwrap();
    let dots = layer(Layer::default().hardlink("leak", "../victim")).unwrap_err();
    assert!(matches!(dots, UnpackError::Escape { .. }) && dots.to_string().contains("hard link"), "{dots}");
    let absolute = layer(Layer::default().hardlink("leak", victim.to_str().unwrap())).unwrap_err();
    assert!(matches!(absolute, UnpackError::HardlinkTarget { .. }), "{absolute}");
    let up = "../../../../../../../../../..";
    let through = format!("out{}", victim.display());
    let by_link = layer(Layer::default().symlink("out", up).hardlink("leak", &through)).unwrap_err();
    assert!(matches!(by_link, UnpackError::Escape { .. }), "{by_link}");
    // A link to a link is a second name of the link, not of what it points to.
    let made = layer(Layer::default().symlink("l", victim.to_str().unwrap()).hardlink("leak", "l")).unwrap();
    assert!(made.path().join("leak").is_symlink());
    assert_eq!(victim.metadata().unwrap().nlink(), 1);
    for target in ["d", "", "self"] {
        let error = layer(Layer::default().dir("d/").hardlink("self", target)).unwrap_err();
        assert!(matches!(error, UnpackError::Entry { .. }), "{target:?}: {error}");
    }
}

#[test]
fn bombs_end_in_named_limits() {
    let directory = tempfile::tempdir().unwrap();
    let many = (0..20).fold(Layer::default(), |layer, i| layer.file(&format!("f{i}"), "")).end();
    let limits = Limits { entries: 10, ..Limits::default() };
    let error = unpack_into(directory.path(), &many, limits).unwrap_err();
    assert_eq!(error.to_string(), "layer exceeds the limit of 10 entries in one layer");
    let big = Layer::default().file("big", &"x".repeat(100_000)).end();
    let limits = Limits { bytes: 50_000, ..Limits::default() };
    assert!(unpack_into(directory.path(), &big, limits).unwrap_err().to_string().contains("50000"));
    let deep = Layer::default().file(&"a/".repeat(40), "").end();
    let limits = Limits { depth: 20, ..Limits::default() };
    assert!(matches!(unpack_into(directory.path(), &deep, limits), Err(UnpackError::Limit { .. })));
    // A gzip bomb: the bound is on what comes out.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&vec![0; 16 << 20]).unwrap();
    let limits = Limits { bytes: 1 << 20, ..Limits::default() };
    let bomb = gzip.finish().unwrap();
    let fd = Root::open_host(directory.path()).unwrap().into_fd();
    assert!(unpack(&bomb[..], Digest::of(b""), fd, limits).unwrap_err().to_string().contains("1048576"));
}

#[test]
fn cve_2025_58183_headers_that_name_huge_lengths_take_no_memory() {
    for (typeflag, what) in
        [(b'x', "PAX header"), (b'g', "PAX header"), (b'L', "long name"), (b'K', "long name")]
    {
        let header = Layer::default().raw(typeflag, "huge", "", b"", |h| h.set_size(1 << 40));
        let error = layer(header).unwrap_err();
        assert!(matches!(error, UnpackError::Limit { .. }) && error.to_string().contains(what), "{error}");
    }
    let map = format!("{}\n{}", u64::MAX, "0\n".repeat(500));
    let sparse = Layer::default()
        .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"10")])
        .file("sparse", &map);
    assert!(matches!(layer(sparse).unwrap_err(), UnpackError::Limit { .. }));
}

#[test]
fn sparse_files_of_all_formats_are_restored() {
    let check = |made: &tempfile::TempDir| {
        let content = std::fs::read(made.path().join("sparse")).unwrap();
        assert_eq!(content.len(), 1 << 20);
        assert_eq!(&content[..3], b"abc");
        assert_eq!(&content[(1 << 20) - 3..], b"xyz");
        assert!(content[3..(1 << 20) - 3].iter().all(|&byte| byte == 0));
    };
    let end = (1 << 20) - 3;
    let gnu = Layer::default().raw(b'S', "sparse", "", b"abcxyz", |header| {
        let gnu = header.as_gnu_mut().unwrap();
        for (slot, offset) in gnu.sparse.iter_mut().zip([0, end]) {
            slot.offset[..11].copy_from_slice(format!("{offset:011o}").as_bytes());
            slot.numbytes[..11].copy_from_slice(b"00000000003");
        }
        gnu.set_real_size(1 << 20);
    });
    check(&layer(gnu).unwrap());
    let size = (1 << 20).to_string();
    let in_header = Layer::default()
        .pax(&[
            ("GNU.sparse.name", b"sparse"),
            ("GNU.sparse.size", size.as_bytes()),
            ("GNU.sparse.map", format!("0,3,{end},3").as_bytes()),
        ])
        .file("placeholder", "abcxyz");
    check(&layer(in_header).unwrap());
    let mut data = format!("2\n0\n3\n{end}\n3\n").into_bytes();
    data.resize(tar::BLOCK, 0);
    data.extend_from_slice(b"abcxyz");
    let in_data = Layer::default()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"sparse"),
            ("GNU.sparse.realsize", size.as_bytes()),
        ])
        .raw(b'0', "placeholder", "", &data, |_| {});
    check(&layer(in_data).unwrap());
    let overlapping = Layer::default()
        .pax(&[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"4,3,0,3")])
        .file("sparse", "abcxyz");
    assert!(matches!(layer(overlapping).unwrap_err(), UnpackError::Tar(_)));
}

#[test]
fn what_is_no_tar_says_so() {
    let whole = Layer::default().file("f", "content").end();
    let directory = tempfile::tempdir().unwrap();
    let cases: [(&str, Vec<u8>); 4] = [
        ("truncated", whole[..600].to_vec()),
        ("truncated", whole[..300].to_vec()),
        ("checksum", [&[b'x'; 512][..], &whole].concat()),
        ("lone block", [&whole[..1024], &[0; 512], &whole].concat()),
    ];
    for (word, bytes) in cases {
        let error = unpack_into(directory.path(), &bytes, Limits::default()).unwrap_err();
        assert!(error.to_string().contains(word), "{error} does not say {word}");
    }
    let unknown = layer(Layer::default().raw(b'V', "volume", "", b"", |_| {})).unwrap_err();
    assert!(unknown.to_string().contains("'V'"), "{unknown}");
    let device =
        layer(Layer::default().raw(b'3', "dev", "", b"", |h| h.set_device_major(0o777_7777).unwrap()));
    assert!(device.unwrap_err().to_string().contains("does not exist on Linux"));
}

#[test]
fn gzip_in_members_zstd_and_plain_give_the_same_and_the_diff_id_is_checked() {
    let tar = Layer::default().file("f", &"content ".repeat(10_000)).end();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let members = [gzip(&tar[..1000]), gzip(&tar[1000..])].concat();
    let zstd = zstd::encode_all(&tar[..], 1).unwrap();
    let unpack_to = |bytes: &[u8], diff_id| {
        let directory = tempfile::tempdir().unwrap();
        let fd = Root::open_host(directory.path()).unwrap().into_fd();
        unpack(bytes, diff_id, fd, Limits::default())
            .map(|_| std::fs::read(directory.path().join("f")).unwrap().len())
    };
    for bytes in [&members, &zstd, &tar] {
        assert_eq!(unpack_to(bytes, Digest::of(&tar)).unwrap(), 80_000);
        let error = unpack_to(bytes, Digest::of(b"other")).unwrap_err();
        assert!(matches!(error, UnpackError::DiffId { .. }), "{error}");
    }
    assert!(matches!(unpack_to(&members[..members.len() - 20], Digest::of(&tar)), Err(UnpackError::Read(_))));
}

#[test]
fn an_empty_layer_is_a_layer() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(unpack_into(directory.path(), &[0; 1024], Limits::default()).unwrap().usage.inodes, 1);
}

#[test]
fn hard_links_to_lower_files_are_copied_up_with_their_metadata() {
    need_root!();
    let base = Layer::default()
        .raw(b'5', "usr", "", b"", |h| h.set_mode(0o711))
        .raw(b'0', "usr/tool", "", b"lower", |h| {
            h.set_mode(0o4711);
            h.set_uid(5);
        })
        .file("removed", "x");
    let base = layer(base).unwrap();
    let middle = layer_over(&[base.path()], &Layer::default().file(".wh.removed", "").end()).unwrap();
    let lowers = [middle.path(), base.path()];
    let top = layer_over(&lowers, &Layer::default().hardlink("bin/tool", "usr/tool").end()).unwrap();
    let (copy, link) = (top.path().join("usr/tool"), top.path().join("bin/tool"));
    let metadata = copy.metadata().unwrap();
    assert_eq!(std::fs::read_to_string(&link).unwrap(), "lower");
    assert_eq!((metadata.mode(), metadata.uid(), metadata.mtime()), (0o104_711, 5, 1_000_000_000));
    assert_eq!(metadata.ino(), link.metadata().unwrap().ino());
    assert_eq!(top.path().join("usr").metadata().unwrap().mode(), 0o040_711);
    assert_ne!(metadata.ino(), base.path().join("usr/tool").metadata().unwrap().ino());
    let whited_out = layer_over(&lowers, &Layer::default().hardlink("l", "removed").end()).unwrap_err();
    assert!(matches!(whited_out, UnpackError::HardlinkTarget { .. }));
}

#[test]
fn directories_in_passing_keep_the_metadata_they_have_below() {
    need_root!();
    let base = layer(
        Layer::default()
            .raw(b'5', "./", "", b"", |h| h.set_mode(0o700))
            .raw(b'5', "tmp", "", b"", |h| h.set_mode(0o1777))
            .raw(b'5', "tmp/private", "", b"", |h| {
                h.set_mode(0o700);
                h.set_uid(33);
            }),
    )
    .unwrap();
    let top = layer_over(&[base.path()], &Layer::default().file("tmp/private/new/file", "x").end()).unwrap();
    let stat = |name: &str| top.path().join(name).metadata().unwrap();
    assert_eq!(stat("").mode() & 0o7777, 0o700);
    assert_eq!(stat("tmp").mode() & 0o7777, 0o1777);
    assert_eq!((stat("tmp/private").mode() & 0o7777, stat("tmp/private").uid()), (0o700, 33));
    assert_eq!(stat("tmp/private/new").mode() & 0o7777, 0o755);
}
