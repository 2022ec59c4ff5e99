package agent

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

type entry struct {
	tar.Header
	body string
}

func archive(t testing.TB, es ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range es {
		h := e.Header
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if h.Size == 0 {
			h.Size = int64(len(e.body))
		}
		h.Uid, h.Gid = os.Getuid(), os.Getgid()
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	w.Flush()
	_ = w.Close()
	return b.Bytes()
}

// sandbox is an outer directory with a canary beside the root that is unpacked into.
func sandbox(t testing.TB) (outer string, root *os.Root) {
	t.Helper()
	outer = t.TempDir()
	in := filepath.Join(outer, "root")
	if err := os.Mkdir(in, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(outer, "canary"), []byte("alive"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenRoot(in)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return outer, r
}

func checkSandbox(t testing.TB, outer string) {
	t.Helper()
	ents, err := os.ReadDir(outer)
	if err != nil || len(ents) != 2 {
		t.Errorf("the archive wrote outside its root: %v", ents)
	}
	if b, _ := os.ReadFile(filepath.Join(outer, "canary")); string(b) != "alive" {
		t.Errorf("the archive changed a file outside its root: %q", b)
	}
}

func TestExtractKeepsWhatMatters(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("owners and device nodes need root")
	}
	outer, root := sandbox(t)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range []entry{
		{Header: tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755}},
		{Header: tar.Header{Name: "./usr/", Typeflag: tar.TypeDir, Mode: 0o755}},
		{Header: tar.Header{Name: "./usr/bin/", Typeflag: tar.TypeDir, Mode: 0o755}},
		{Header: tar.Header{Name: "./bin", Typeflag: tar.TypeSymlink, Linkname: "usr/bin"}},
		{Header: tar.Header{Name: "./usr/bin/sudo", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 12, Gid: 34, Size: 4}, body: "sudo"},
		{Header: tar.Header{Name: "./usr/bin/ping", Typeflag: tar.TypeReg, Mode: 0o755, Size: 4, Format: tar.FormatPAX,
			PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}}, body: "ping"},
		{Header: tar.Header{Name: "./usr/bin/su", Typeflag: tar.TypeLink, Linkname: "./usr/bin/sudo"}},
		{Header: tar.Header{Name: "./dev/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3}},
		{Header: tar.Header{Name: "./run/fifo", Typeflag: tar.TypeFifo, Mode: 0o600}},
		{Header: tar.Header{Name: "./tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}},
		{Header: tar.Header{Name: "./etc/mtab", Typeflag: tar.TypeSymlink, Linkname: "../proc/self/mounts"}},
		{Header: tar.Header{Name: "./through/", Typeflag: tar.TypeDir, Mode: 0o755}},
		{Header: tar.Header{Name: "bin/ls", Typeflag: tar.TypeReg, Mode: 0o755, Size: 2}, body: "ls"}, // through a link that stays inside
	} {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, e.body)
	}
	w.Close()
	if err := extractTar(&b, root, 1<<20, nil); err != nil {
		t.Fatal(err)
	}
	in := filepath.Join(outer, "root")
	st := func(p string) *syscall.Stat_t {
		fi, err := os.Lstat(filepath.Join(in, p))
		if err != nil {
			t.Fatal(err)
		}
		return fi.Sys().(*syscall.Stat_t)
	}
	if s := st("usr/bin/sudo"); s.Uid != 12 || s.Gid != 34 || s.Mode&0o7777 != 0o4755 || s.Nlink != 2 {
		t.Errorf("sudo: uid %d gid %d mode %o links %d", s.Uid, s.Gid, s.Mode, s.Nlink)
	}
	if st("usr/bin/su").Ino != st("usr/bin/sudo").Ino {
		t.Error("hard link is a copy")
	}
	if s := st("dev/null"); s.Mode&syscall.S_IFMT != syscall.S_IFCHR || s.Rdev != 1<<8|3 || s.Mode&0o777 != 0o666 {
		t.Errorf("null: mode %o rdev %x", s.Mode, s.Rdev)
	}
	if s := st("run/fifo"); s.Mode&syscall.S_IFMT != syscall.S_IFIFO {
		t.Errorf("fifo: mode %o", s.Mode)
	}
	if s := st("tmp"); s.Mode&0o7777 != 0o1777 {
		t.Errorf("tmp: mode %o", s.Mode)
	}
	var cap [64]byte
	if n, err := syscall.Getxattr(filepath.Join(in, "usr/bin/ping"), "security.capability", cap[:]); err != nil || n != 20 {
		t.Errorf("capability: %d, %v", n, err)
	}
	if b, _ := os.ReadFile(filepath.Join(in, "usr/bin/ls")); string(b) != "ls" {
		t.Errorf("ls: %q", b)
	}
	checkSandbox(t, outer)
}

func TestHostileArchives(t *testing.T) {
	big := strings.Repeat("x", 4096)
	dirs := func(n int) (es []entry) {
		for i := 0; i < n; i++ {
			es = append(es, entry{Header: tar.Header{Name: "fifo" + strings.Repeat("f", i%7) + string(rune('a'+i%26)) + strings.Repeat("z", i/26%90) + "_" + strings.Repeat("y", i/2340), Typeflag: tar.TypeFifo}})
		}
		return
	}
	cases := []struct {
		name string
		es   []entry
		want string // "": may succeed, but must stay inside
	}{
		{"climbs", []entry{{Header: tar.Header{Name: "../canary"}, body: "dead"}}, "climbs"},
		{"climbs later", []entry{{Header: tar.Header{Name: "a/../../canary"}, body: "dead"}}, "climbs"},
		{"absolute", []entry{{Header: tar.Header{Name: "/canary"}, body: "dead"}}, ""},
		{"link out, then through it", []entry{{Header: tar.Header{Name: "out", Typeflag: tar.TypeSymlink, Linkname: ".."}}, {Header: tar.Header{Name: "out/canary"}, body: "dead"}}, "escapes"},
		{"absolute link, then through it", []entry{{Header: tar.Header{Name: "out", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}}, {Header: tar.Header{Name: "out/x/canary"}, body: "dead"}}, "escapes"},
		{"link onto a file outside, then write it", []entry{{Header: tar.Header{Name: "f", Typeflag: tar.TypeSymlink, Linkname: "../canary"}}, {Header: tar.Header{Name: "f"}, body: "dead"}}, ""},
		{"directory over a link out", []entry{{Header: tar.Header{Name: "d", Typeflag: tar.TypeSymlink, Linkname: ".."}}, {Header: tar.Header{Name: "d/", Typeflag: tar.TypeDir}}}, "takes a file's place"},
		{"swap a directory for a link", []entry{{Header: tar.Header{Name: "d/", Typeflag: tar.TypeDir}}, {Header: tar.Header{Name: "d/a"}, body: "1"}, {Header: tar.Header{Name: "d", Typeflag: tar.TypeSymlink, Linkname: ".."}}, {Header: tar.Header{Name: "d/canary"}, body: "dead"}}, "takes a directory's place"},
		{"hard link out", []entry{{Header: tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "../canary"}}, {Header: tar.Header{Name: "h"}, body: "dead"}}, "climbs"},
		{"hard link through a link out", []entry{{Header: tar.Header{Name: "out", Typeflag: tar.TypeSymlink, Linkname: ".."}}, {Header: tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "out/canary"}}}, "escapes"},
		{"size bomb", []entry{{Header: tar.Header{Name: "a"}, body: big}, {Header: tar.Header{Name: "b"}, body: big}, {Header: tar.Header{Name: "c"}, body: big}}, "larger than"},
		{"device bomb", dirs(maxDevices + 1), "device nodes"},
		{"unknown type", []entry{{Header: tar.Header{Name: "x", Typeflag: 'Z'}}}, "not known"},
		{"empty", nil, "empty"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			outer, root := sandbox(t)
			err := extractTar(bytes.NewReader(archive(t, c.es...)), root, 10000, nil)
			checkSandbox(t, outer)
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestTruncatedArchive(t *testing.T) {
	b := archive(t, entry{Header: tar.Header{Name: "a"}, body: strings.Repeat("x", 5000)})
	_, root := sandbox(t)
	if err := extractTar(bytes.NewReader(b[:3000]), root, 1<<20, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
}

func TestDecompress(t *testing.T) {
	plain := archive(t, entry{Header: tar.Header{Name: "hello"}, body: "world"})
	pack := func(f func(io.Writer) io.WriteCloser) []byte {
		var b bytes.Buffer
		w := f(&b)
		_, _ = w.Write(plain)
		_ = w.Close()
		return b.Bytes()
	}
	for name, data := range map[string][]byte{
		"tar":  plain,
		"gzip": pack(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }),
		"zstd": pack(func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z }),
		"xz":   pack(func(w io.Writer) io.WriteCloser { z, _ := xz.NewWriter(w); return z }),
	} {
		outer, root := sandbox(t)
		r, done, err := decompress(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := extractTar(r, root, 1<<20, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		done()
		if b, _ := os.ReadFile(filepath.Join(outer, "root/hello")); string(b) != "world" {
			t.Errorf("%s: %q", name, b)
		}
	}
	if _, _, err := decompress(bytes.NewReader(nil)); err == nil {
		t.Error("nothing was taken for an archive")
	}
}

func FuzzExtract(f *testing.F) {
	f.Add(archive(f, entry{Header: tar.Header{Name: "out", Typeflag: tar.TypeSymlink, Linkname: ".."}}, entry{Header: tar.Header{Name: "out/canary"}, body: "dead"}))
	f.Add(archive(f, entry{Header: tar.Header{Name: "a/b/c"}, body: "x"}, entry{Header: tar.Header{Name: "a/b/d", Typeflag: tar.TypeLink, Linkname: "a/b/c"}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b)
		for h := 0; h+512 <= len(b); h += 512 { // with wrong checksums the tar reader would stop at once
			copy(b[h+148:], "        ")
			sum := 0
			for _, c := range b[h : h+512] {
				sum += int(c)
			}
			copy(b[h+148:], fmt.Sprintf("%06o\x00 ", sum))
		}
		outer, root := sandbox(t)
		_ = extractTar(bytes.NewReader(b), root, 1<<16, nil)
		checkSandbox(t, outer)
		_ = filepath.WalkDir(outer, func(p string, d os.DirEntry, err error) error { // so that TempDir can be removed
			if err == nil && d.IsDir() {
				_ = os.Chmod(p, 0o700)
			}
			return nil
		})
	})
}

func dirHeader(n string) tar.Header  { return tar.Header{Name: n, Typeflag: tar.TypeDir, Mode: 0o755} }
func fileHeader(n string) tar.Header { return tar.Header{Name: n} }
func exe(n, body string) entry {
	return entry{Header: tar.Header{Name: n, Mode: 0o755}, body: body}
}

func gz(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return out.Bytes()
}
