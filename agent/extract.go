package agent

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"
)

// Limits of what an archive may do.
const (
	maxEntries = 5_000_000
	maxDevices = 4096 // a root file system has a few dozen
	maxNameLen = 4096
	maxXattrs  = 256
)

// decompress opens a stream by its own magic number, whatever the file type claims. The stream's content is verified by its reader.
func decompress(r io.Reader) (io.Reader, func(), error) {
	br := bufio.NewReaderSize(r, 1<<20)
	m, err := br.Peek(6)
	if err != nil && len(m) < 4 {
		return nil, nil, fmt.Errorf("archive: %w", err)
	}
	none := func() {}
	switch {
	case bytes.HasPrefix(m, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(br)
		return z, none, err
	case bytes.HasPrefix(m, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		// One goroutine: those before and after it do the rest at the same time, and handing blocks over costs more than it gains. The
		// frame's own checksum says less than the image's SHA-256, which is verified. Small windows are given the memory to be quick.
		var h zstd.Header
		head, _ := br.Peek(zstd.HeaderMaxSize)
		small := h.Decode(head) == nil && h.WindowSize <= 16<<20
		z, err := zstd.NewReader(&zstdZeros{r: br}, zstd.WithDecoderMaxMemory(512<<20), zstd.WithDecoderConcurrency(1), zstd.IgnoreChecksum(true), zstd.WithDecoderLowmem(!small))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	case bytes.HasPrefix(m, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		z, err := xz.NewReader(br)
		return z, none, err
	case bytes.HasPrefix(m, []byte("BZh")):
		return bzip2.NewReader(br), none, nil
	}
	return br, none, nil // a plain tar; the tar reader says if not
}

// extractor unpacks a tar archive below a directory. Every path goes through os.Root, so no name and no symbolic link, however made,
// leads out; what a hostile archive can do is fill the target's own file system, and that has limits as well.
type extractor struct {
	root     *os.Root
	maxBytes int64
	dirName  string // parent directory of the last entry, kept open: archives are grouped by directory
	dir      *os.Root
	dirs     []dirTimes
	bytes    int64
	entries  int
	devices  int
	progress func(bytes int64)
	buf      []byte
}

type dirTimes struct {
	name  string
	mtime time.Time
}

// errArchive marks what is wrong with the archive rather than with the disk.
var errArchive = errors.New("archive")

// extractTar reads all of r. maxBytes bounds the sum of file sizes.
func extractTar(r io.Reader, root *os.Root, maxBytes int64, progress func(int64)) error {
	x := &extractor{root: root, maxBytes: maxBytes, progress: progress, buf: make([]byte, 256<<10)}
	defer x.leave()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errArchive, err)
		}
		if err := x.entry(h, tr); err != nil {
			return fmt.Errorf("unpack %q: %w", clip(printable(h.Name), 200), err)
		}
	}
	if x.entries == 0 {
		return fmt.Errorf("%w: empty", errArchive)
	}
	for i := len(x.dirs) - 1; i >= 0; i-- {
		_ = root.Chtimes(x.dirs[i].name, x.dirs[i].mtime, x.dirs[i].mtime)
	}
	return nil
}

func (x *extractor) leave() {
	if x.dir != nil {
		x.dir.Close()
	}
	x.dir, x.dirName = nil, ""
}

// cleanName makes a relative path without dots. Names that climb are refused rather than clamped: an honest archive has none.
func cleanName(n string) (string, error) {
	if len(n) > maxNameLen || strings.ContainsRune(n, 0) {
		return "", fmt.Errorf("%w: bad name", errArchive)
	}
	for _, p := range strings.Split(n, "/") {
		if p == ".." {
			return "", fmt.Errorf("%w: name climbs out", errArchive)
		}
	}
	c := strings.TrimLeft(path.Clean("/"+n), "/")
	if c == "" {
		c = "."
	}
	return c, nil
}

// parent opens the directory of an entry and returns the entry's last name.
func (x *extractor) parent(name string) (*os.Root, string, error) {
	dir, base := path.Split(name)
	dir = strings.TrimRight(dir, "/")
	if dir == "" {
		dir = "."
	}
	if x.dir != nil && x.dirName == dir {
		return x.dir, base, nil
	}
	x.leave()
	d, err := x.root.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err = x.root.MkdirAll(dir, 0o755); err == nil {
			d, err = x.root.OpenRoot(dir)
		}
	}
	if err != nil {
		return nil, "", err
	}
	x.dir, x.dirName = d, dir
	return d, base, nil
}

func (x *extractor) entry(h *tar.Header, body io.Reader) error {
	if x.entries++; x.entries > maxEntries {
		return fmt.Errorf("%w: more than %d entries", errArchive, maxEntries)
	}
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	mode := h.FileInfo().Mode()
	if name == "." {
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("%w: the root is no directory", errArchive)
		}
		if err := x.root.Lchown(".", h.Uid, h.Gid); err != nil {
			return err
		}
		return x.root.Chmod(".", mode)
	}
	d, base, err := x.parent(name)
	if err != nil {
		return err
	}
	if h.Typeflag != tar.TypeDir {
		if err := x.clear(d, base, name); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return x.mkdir(d, base, name, h, mode)
	case tar.TypeReg:
		if err := x.file(d, base, h, mode, body); err != nil {
			return err
		}
		return nil
	case tar.TypeSymlink:
		if err := d.Symlink(h.Linkname, base); err != nil { // where it points matters to nobody: os.Root never follows it out
			return err
		}
		return d.Lchown(base, h.Uid, h.Gid)
	case tar.TypeLink:
		to, err := cleanName(h.Linkname)
		if err != nil {
			return err
		}
		// both ends are looked up from the top; Link itself follows no symbolic link at the end
		return x.root.Link(to, name)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		if x.devices++; x.devices > maxDevices {
			return fmt.Errorf("%w: more than %d device nodes", errArchive, maxDevices)
		}
		return x.node(d, base, h, mode)
	case tar.TypeXGlobalHeader:
		return nil
	}
	return fmt.Errorf("%w: entry type %q is not known", errArchive, h.Typeflag)
}

// clear removes what stands where a file is to go. Directories are not replaced.
func (x *extractor) clear(d *os.Root, base, name string) error {
	fi, err := d.Lstat(base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.IsDir() {
		return fmt.Errorf("%w: a file takes a directory's place", errArchive)
	}
	if x.dirName == name || strings.HasPrefix(x.dirName, name+"/") {
		x.leave()
	}
	return d.Remove(base)
}

func (x *extractor) mkdir(d *os.Root, base, name string, h *tar.Header, mode fs.FileMode) error {
	err := d.Mkdir(base, 0o700)
	if errors.Is(err, fs.ErrExist) {
		fi, serr := d.Lstat(base)
		if serr != nil {
			return serr
		}
		if !fi.IsDir() { // also a symbolic link to a directory: an archive that has both is mixed up
			return fmt.Errorf("%w: a directory takes a file's place", errArchive)
		}
		err = nil
	}
	if err != nil {
		return err
	}
	f, err := d.Open(base)
	if err != nil {
		return err
	}
	defer f.Close()
	if len(x.dirs) < 500_000 {
		x.dirs = append(x.dirs, dirTimes{name, h.ModTime})
	}
	return attributes(f, h, mode)
}

func (x *extractor) file(d *os.Root, base string, h *tar.Header, mode fs.FileMode, body io.Reader) error {
	if h.Size < 0 || x.bytes+h.Size > x.maxBytes {
		return fmt.Errorf("%w: the files are larger than %d bytes together", errArchive, x.maxBytes)
	}
	f, err := d.OpenFile(base, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, body, x.buf) // not ReadFrom: it would make a buffer of its own for each file
	if err == nil && n != h.Size {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		err = attributes(f, h, mode)
	}
	if err == nil {
		tv := unix.NsecToTimeval(h.ModTime.UnixNano())
		_ = unix.Futimes(int(f.Fd()), []unix.Timeval{tv, tv})
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	before := x.bytes >> 25
	x.bytes += h.Size
	if x.progress != nil && x.bytes>>25 != before {
		x.progress(x.bytes)
	}
	return err
}

// attributes sets owner, mode (after the owner: chown clears the set-id bits) and extended attributes of an open file.
func attributes(f *os.File, h *tar.Header, mode fs.FileMode) error {
	if err := f.Chown(h.Uid, h.Gid); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	n := 0
	for k, v := range h.PAXRecords {
		attr, ok := strings.CutPrefix(k, "SCHILY.xattr.")
		if !ok {
			continue
		}
		if n++; n > maxXattrs {
			return fmt.Errorf("%w: too many extended attributes", errArchive)
		}
		if !strings.HasPrefix(attr, "security.") && !strings.HasPrefix(attr, "user.") && !strings.HasPrefix(attr, "system.posix_acl_") && !strings.HasPrefix(attr, "trusted.") {
			continue
		}
		if attr == "security.selinux" { // labels belong to the policy of the installed system, which relabels
			continue
		}
		if err := unix.Fsetxattr(int(f.Fd()), attr, []byte(v), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("extended attribute %s: %w", clip(attr, 60), err)
		}
	}
	return nil
}

// node makes a device node or FIFO. The parent's descriptor keeps it inside the root.
func (x *extractor) node(d *os.Root, base string, h *tar.Header, mode fs.FileMode) error {
	p, err := d.Open(".")
	if err != nil {
		return err
	}
	defer p.Close()
	m := uint32(mode.Perm())
	dev := 0
	switch h.Typeflag {
	case tar.TypeChar:
		m |= unix.S_IFCHR
	case tar.TypeBlock:
		m |= unix.S_IFBLK
	case tar.TypeFifo:
		m |= unix.S_IFIFO
	}
	if h.Typeflag != tar.TypeFifo {
		if h.Devmajor < 0 || h.Devmajor > 0xfff || h.Devminor < 0 || h.Devminor > 0xfffff {
			return fmt.Errorf("%w: bad device number", errArchive)
		}
		dev = int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))
	}
	if err := unix.Mknodat(int(p.Fd()), base, m, dev); err != nil {
		return err
	}
	if err := d.Lchown(base, h.Uid, h.Gid); err != nil {
		return err
	}
	return unix.Fchmodat(int(p.Fd()), base, uint32(mode.Perm()), 0)
}
