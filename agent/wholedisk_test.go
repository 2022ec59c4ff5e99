package agent

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// testImage is a disk with a table, boot code, an EFI system partition and some data between holes.
func testImage(t testing.TB, size int64, uefi, bootCode bool) []byte {
	t.Helper()
	b := make([]byte, size)
	w := memDisk{b}
	parts := []tablePart{{number: 1, typ: typeLinux, uuid: newUUID(), start: 4 * mib, end: size - 2*mib}}
	if uefi {
		parts = []tablePart{{number: 1, typ: typeESP, uuid: newUUID(), start: mib, end: 2 * mib}, {number: 2, typ: typeLinux, uuid: newUUID(), start: 4 * mib, end: size - 2*mib}}
	}
	if err := writeGPT(w, size, 512, newUUID(), parts); err != nil {
		t.Fatal(err)
	}
	if bootCode {
		copy(b, "\xeb\x63boot code")
	}
	r := rand.NewChaCha8([32]byte{1})
	for _, at := range []int64{4 * mib, 4*mib + 300<<10, 9*mib + 12345, size - 3*mib} {
		_, _ = r.Read(b[at : at+100_000])
	}
	return b
}

type memDisk struct{ b []byte }

func (m memDisk) WriteAt(p []byte, off int64) (int, error) { return copy(m.b[off:], p), nil }
func (m memDisk) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m.b).ReadAt(p, off)
}

// staleDisk is a disk full of somebody else's data.
func staleDisk(t testing.TB, size int64) target {
	t.Helper()
	p := filepath.Join(t.TempDir(), "vda")
	if err := os.WriteFile(p, bytes.Repeat([]byte("stale secret "), int(size)/13+1)[:size], 0o600); err != nil {
		t.Fatal(err)
	}
	return target{disk: Disk{Name: "vda", Path: p, Serial: "S", Type: "virtio", Size: size, BlockSize: 512}, verified: true}
}

func pack(t testing.TB, f func(io.Writer) (io.WriteCloser, error), b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := f(&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func gzipped(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, gzip.BestSpeed) }
func zstded(w io.Writer) (io.WriteCloser, error)  { return zstd.NewWriter(w) }
func xzed(w io.Writer) (io.WriteCloser, error)    { return xz.NewWriter(w) }

func bzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	c := exec.Command("bzip2", "-c")
	c.Stdin = bytes.NewReader(b)
	out, err := c.Output()
	if err != nil {
		t.Skipf("bzip2: %v", err)
	}
	return out
}

func tarred(t testing.TB, es ...entry) []byte { return archive(t, es...) }

func TestWholeDiskForms(t *testing.T) {
	const size, disk = 24 * mib, 40 * mib
	img := testImage(t, size, true, true)
	member := entry{Header: tar.Header{Name: "disk.raw"}, body: string(img)}
	one := tarred(t, entry{Header: tar.Header{Name: "./", Typeflag: tar.TypeDir}}, member)
	for _, c := range []struct {
		typ  string
		data []byte
	}{
		{"root-dd.raw", img}, {"ddraw", img}, {"dd-raw", img},
		{"root-dd.gz", pack(t, gzipped, img)}, {"ddgz", pack(t, gzipped, img)},
		{"root-dd.xz", pack(t, xzed, img)}, {"root-dd.zst", pack(t, zstded, img)},
		{"root-dd.bz2", bzipped(t, img)},
		{"root-dd", pack(t, gzipped, one)}, {"ddtgz", pack(t, gzipped, one)}, {"root-dd.tar", one},
		{"root-dd.tar.bz2", bzipped(t, one)}, {"root-dd.tar.xz", pack(t, xzed, one)}, {"dd-txz", pack(t, xzed, one)}, {"root-dd.tar.zst", pack(t, zstded, one)},
	} {
		t.Run(c.typ, func(t *testing.T) {
			d := staleDisk(t, disk)
			if err := writeWholeDisk(t.Context(), d, bytes.NewReader(c.data), c.typ, "uefi", t.Logf); err != nil {
				t.Fatal(err)
			}
			checkImage(t, d, img)
		})
	}
}

// checkImage compares the disk with the image byte by byte, but for what is fitted to the disk's size.
func checkImage(t *testing.T, d target, img []byte) {
	t.Helper()
	got, err := os.ReadFile(d.disk.Path)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(got)) != d.disk.Size {
		t.Fatalf("the disk has %d bytes now", len(got))
	}
	want := bytes.Clone(img)
	copy(want[:1024], got[:1024]) // the protective entry and the first header name the disk's own end
	old := int64(len(img)) - 512  // the copy in the middle is wiped
	clear(want[old:])
	if !bytes.Equal(got[:len(want)], want) {
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("byte %d is %#x, the image has %#x", i, got[i], want[i])
			}
		}
	}
	if bytes.Contains(got[:len(want)], []byte("stale secret")) {
		t.Fatal("what was on the disk shows through a hole")
	}
	r := bytes.NewReader(got)
	for _, at := range []int64{512, d.disk.Size - 512} {
		h, err := readGPTHeader(r, at, 512)
		if err != nil {
			t.Fatalf("GPT at %d: %v", at, err)
		}
		if last := int64(binary.LittleEndian.Uint64(h.raw[48:])); last != d.disk.Size/512-34 {
			t.Fatalf("GPT at %d ends at sector %d of %d", at, last, d.disk.Size/512)
		}
	}
	if sg, err := exec.LookPath("sgdisk"); err == nil {
		out, err := exec.Command(sg, "-v", d.disk.Path).CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("No problems found")) {
			t.Fatalf("sgdisk -v: %v\n%s", err, out)
		}
	}
}

func TestWholeDiskRefusals(t *testing.T) {
	const size, disk = 24 * mib, 40 * mib
	img := testImage(t, size, true, true)
	bios := testImage(t, size, false, true)
	noCode := testImage(t, size, true, false)
	big := testImage(t, disk+8*mib, true, true)
	fourK := make([]byte, size)
	if err := writeGPT(memDisk{fourK}, size, 4096, newUUID(), []tablePart{{number: 1, typ: typeESP, uuid: newUUID(), start: mib, end: 2 * mib}}); err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(img)
	damaged[1024+40] ^= 1
	two := tarred(t, entry{Header: tar.Header{Name: "a.raw"}, body: string(img)}, entry{Header: tar.Header{Name: "b.raw"}, body: "x"})
	xzBroken := pack(t, xzed, img)
	xzBroken[len(xzBroken)/2] ^= 0x55
	long := append(bytes.Clone(img), make([]byte, disk)...)
	for _, c := range []struct {
		name, typ, firmware string
		data                []byte
		touched             bool // the disk may have been written
		want                string
	}{
		{"BIOS image on UEFI", "root-dd.raw", "uefi", bios, false, "no EFI system partition"},
		{"UEFI image on BIOS", "root-dd.raw", "bios", noCode, false, "no boot code"},
		{"too large by its table", "root-dd.raw", "uefi", big, false, "does not fit"},
		{"too large by its bytes", "root-dd.raw", "uefi", long, true, "larger than the disk"},
		{"4096-byte sectors", "root-dd.raw", "uefi", fourK, false, "sectors of 4096"},
		{"qcow2", "root-dd.raw", "uefi", append([]byte("QFI\xfb"), make([]byte, mib)...), false, "qcow2"},
		{"compressed though raw", "root-dd.raw", "uefi", pack(t, zstded, img), false, "compressed with zstd"},
		{"compressed twice", "root-dd.gz", "uefi", pack(t, gzipped, pack(t, gzipped, img)), false, "compressed with gzip"},
		{"a file system", "root-dd.raw", "uefi", make([]byte, size), false, "no partition table"},
		{"damaged table", "root-dd.raw", "uefi", damaged, false, "checksum"},
		{"two files", "root-dd.tar", "uefi", two, true, "a second file"},
		{"no file", "root-dd.tar", "uefi", tarred(t, entry{Header: tar.Header{Name: "d/", Typeflag: tar.TypeDir}}), false, "holds no file"},
		{"a device", "root-dd.tar", "uefi", tarred(t, entry{Header: tar.Header{Name: "d", Typeflag: tar.TypeBlock}}), false, "no place"},
		{"cut off raw", "root-dd.raw", "uefi", img[:10*mib], true, "cut off"},
		{"cut off gzip", "root-dd.gz", "uefi", pack(t, gzipped, img)[:200_000], true, "unexpected EOF"},
		{"corrupt xz", "root-dd.xz", "uefi", xzBroken, true, ""},
		{"empty", "root-dd.raw", "uefi", nil, false, "empty"},
		{"unknown type", "root-dd.rar", "uefi", img, false, "not a whole-disk image"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := staleDisk(t, disk)
			before, _ := os.ReadFile(d.disk.Path)
			err := writeWholeDisk(t.Context(), d, bytes.NewReader(c.data), c.typ, c.firmware, t.Logf)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			after, _ := os.ReadFile(d.disk.Path)
			if !c.touched && !bytes.Equal(before, after) {
				t.Fatal("a refused image changed the disk")
			}
		})
	}
}

// TestWholeDiskSourceError gives the stream's own error, not that of the program that it feeds.
func TestWholeDiskSourceError(t *testing.T) {
	img := testImage(t, 24*mib, true, true)
	for typ, data := range map[string][]byte{"root-dd.raw": img, "root-dd.xz": pack(t, xzed, img), "root-dd.zst": pack(t, zstded, img)} {
		want := errors.New("the network is gone")
		r := io.MultiReader(bytes.NewReader(data[:len(data)/2]), failingReader{want})
		if err := writeWholeDisk(t.Context(), staleDisk(t, 40*mib), r, typ, "uefi", t.Logf); !errors.Is(err, want) {
			t.Errorf("%s: got %v", typ, err)
		}
		// a digest that turns out wrong at the very end
		r = io.MultiReader(bytes.NewReader(data), failingReader{errMismatch})
		if err := writeWholeDisk(t.Context(), staleDisk(t, 40*mib), r, typ, "uefi", t.Logf); !errors.Is(err, errMismatch) {
			t.Errorf("%s: a wrong digest counted: %v", typ, err)
		}
	}
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

func TestReadBackFindsAFaultyDisk(t *testing.T) {
	img := testImage(t, 24*mib, true, true)
	for _, name := range []string{"data", "a hole"} {
		d := staleDisk(t, 40*mib)
		f, err := d.open()
		if err != nil {
			t.Fatal(err)
		}
		w := newImageWriter(d, f, t.Logf)
		if _, err := w.copy(t.Context(), bytes.NewReader(img), func([]byte, bool) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if err := w.verify(t.Context()); err != nil {
			t.Fatalf("a good disk: %v", err)
		}
		at := int64(4*mib + 50_000)
		if name == "a hole" { // these are looked at in samples
			at = w.holes[1].Start
		}
		if _, err := f.WriteAt([]byte("bit rot"), at); err != nil {
			t.Fatal(err)
		}
		if err := w.verify(t.Context()); err == nil || !strings.Contains(err.Error(), "does not read back") {
			t.Errorf("%s: got %v", name, err)
		}
		f.Close()
	}
}

func TestWipeBehindTheImage(t *testing.T) {
	img := testImage(t, 24*mib, true, true)
	d := staleDisk(t, 64*mib)
	d.disk.Parts = []Span{{30 * mib, 20 * mib}}
	f, err := os.OpenFile(d.disk.Path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("LABELONE"), 30*mib+512); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := writeWholeDisk(t.Context(), d, bytes.NewReader(img), "root-dd.raw", "uefi", t.Logf); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(d.disk.Path)
	if bytes.Contains(got, []byte("LABELONE")) {
		t.Fatal("a physical volume of the old system is still there")
	}
	checkImage(t, d, img)
}

func TestReadTableMBR(t *testing.T) {
	b := make([]byte, 20*mib)
	parts := []tablePart{{number: 1, code: 0x83, start: mib, end: 4 * mib, active: true}, {number: 2, code: 0x0f, flag: "extended", start: 8 * mib, end: 20 * mib},
		{number: 5, code: 0x83, flag: "logical", start: 9 * mib, end: 12 * mib}, {number: 6, code: 0x8e, flag: "logical", start: 13 * mib, end: 20 * mib}}
	if err := writeMBR(memDisk{b}, int64(len(b)), 512, "5708a6e0", parts); err != nil {
		t.Fatal(err)
	}
	got, err := readTable(memDisk{b}, int64(len(b)), 512)
	if err != nil || got.kind != "msdos" || len(got.parts) != 3 || got.bootCode {
		t.Fatalf("%+v, %v", got, err)
	}
	if p := got.parts[2]; p.number != 6 || p.start != 13*mib || p.size != 7*mib || p.typ != "0x8e" {
		t.Fatalf("%+v", p)
	}
	// a chain that bites its own tail
	copy(b[13*mib-mib+462:], b[9*mib-mib+462:9*mib-mib+478])
	if _, err := readTable(memDisk{b}, int64(len(b)), 512); err != nil {
		t.Fatal(err)
	}
}

func FuzzReadTable(f *testing.F) {
	const size = mib
	b := make([]byte, size)
	if err := writeGPT(memDisk{b}, size, 512, newUUID(), []tablePart{{number: 1, typ: typeESP, uuid: newUUID(), start: 64 << 10, end: 128 << 10}}); err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.Clone(b[:512+92]), uint8(1))
	b = make([]byte, size)
	if err := writeMBR(memDisk{b}, size, 512, "5708a6e0", []tablePart{{number: 1, code: 0x0f, flag: "extended", start: 64 << 10, end: size}}); err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.Clone(b[440:512]), uint8(0))
	disk := memDisk{make([]byte, size)}
	f.Fuzz(func(t *testing.T, b []byte, how uint8) {
		clear(disk.b)
		if how&1 == 0 { // an MBR's entries
			copy(disk.b[440:], b)
		} else {
			copy(disk.b, b)
		}
		le := binary.LittleEndian
		if n := min(max(le.Uint32(disk.b[512+12:]), 92), 512); how&2 != 0 { // sums that fit, so that the rest is looked at
			le.PutUint32(disk.b[512+88:], crc32.ChecksumIEEE(disk.b[1024:1024+min(size-1024, uint64(le.Uint32(disk.b[512+80:]))*uint64(le.Uint32(disk.b[512+84:])))]))
			le.PutUint32(disk.b[512+16:], 0)
			le.PutUint32(disk.b[512+16:], crc32.ChecksumIEEE(disk.b[512:512+n]))
		}
		table, err := readTable(disk, size, 512)
		if err == nil && table.end() > size {
			t.Fatalf("a partition ends at %d", table.end())
		}
		_, _ = inspectImage(disk.b[:64<<10], false, Disk{Path: "/dev/vda", Size: size, BlockSize: 512}, "uefi", "amd64")
		if moveBackupGPT(disk, size, 512) == nil {
			if after, err := readTable(disk, size, 512); err != nil || len(after.parts) != len(table.parts) {
				t.Fatalf("the table that was moved: %d partitions, then %d, %v", len(table.parts), len(after.parts), err)
			}
		}
	})
}

func TestImageDisk(t *testing.T) {
	id := func(n string, boot bool) api.StorageItem {
		return api.StorageItem{Type: api.StorageDisk, Boot: boot, Disk: &api.DiskID{Name: n, Size: 1}}
	}
	for _, c := range []struct {
		items []api.StorageItem
		want  string
	}{
		{[]api.StorageItem{id("a", false)}, "a"}, {[]api.StorageItem{id("a", false), id("b", true)}, "b"}, {nil, ""},
		{[]api.StorageItem{id("a", true), id("b", true)}, ""}, {[]api.StorageItem{id("a", false), id("b", false)}, ""},
	} {
		got, err := imageDisk(api.InstallPlan{Storage: c.items})
		if got.Name != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%v: %v, %v", c.items, got, err)
		}
	}
}
