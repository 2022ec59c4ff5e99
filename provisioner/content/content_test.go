package content

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

func digest(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func testBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}).Read(b)
	return b
}

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func mustEqualBlob(t *testing.T, s *Store, want []byte) {
	t.Helper()
	f, err := s.Open(digest(want))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("blob differs: %d bytes, want %d", len(got), len(want))
	}
}

func leftovers(t *testing.T, s *Store) []string {
	t.Helper()
	n, err := s.names(uploadDir)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestPut(t *testing.T) {
	s := openStore(t, t.TempDir())
	for _, n := range []int{0, 1, 70000} {
		want := testBytes(n)
		sha, size, err := s.Put(bytes.NewReader(want))
		if err != nil || sha != digest(want) || size != int64(n) {
			t.Fatalf("Put(%d bytes) = %s, %d, %v", n, sha, size, err)
		}
		mustEqualBlob(t, s, want)
		if !s.Has(sha) || s.Path(sha) != filepath.Join(s.dir, "blobs", sha) {
			t.Fatal("Has or Path is wrong")
		}
	}
	if _, _, err := s.Put(iotest.ErrReader(io.ErrUnexpectedEOF)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("a failing reader gave %v", err)
	}
	if l := leftovers(t, s); len(l) != 0 {
		t.Fatalf("left behind: %v", l)
	}
}

func TestUploadInChunks(t *testing.T) {
	s := openStore(t, t.TempDir())
	want := testBytes(100_000)
	u, err := s.NewUpload("7")
	if err != nil {
		t.Fatal(err)
	}
	var at int64
	for at < int64(len(want)) {
		n := min(int64(33_333), int64(len(want))-at)
		at, err = u.Append(at, bytes.NewReader(want[at:at+n]), n)
		if err != nil {
			t.Fatal(err)
		}
	}
	if s.Has(digest(want)) {
		t.Fatal("a blob stands before Finish")
	}
	if err := u.Finish(t.Context(), at, digest(want)); err != nil {
		t.Fatal(err)
	}
	mustEqualBlob(t, s, want)
	// A client that did not hear the answer asks again.
	again, _ := s.NewUpload("7")
	if err := again.Finish(t.Context(), at, digest(want)); err != nil {
		t.Fatalf("second Finish: %v", err)
	}
	if l := leftovers(t, s); len(l) != 0 {
		t.Fatalf("left behind: %v", l)
	}
}

func TestUploadRefusals(t *testing.T) {
	s := openStore(t, t.TempDir())
	u, _ := s.NewUpload("x")
	release, err := u.Hold()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Hold(); !errors.Is(err, ErrBusy) {
		t.Errorf("second holder: %v", err)
	}
	release()
	if release, err = u.Hold(); err != nil {
		t.Fatal(err)
	}
	release()
	if _, err := u.Append(0, strings.NewReader("abcd"), 3); !errors.Is(err, ErrTooLong) {
		t.Errorf("long piece: %v", err)
	}
	if _, err := u.Append(5, strings.NewReader("abc"), 3); !errors.Is(err, ErrLost) {
		t.Errorf("hole: %v", err)
	}
	if at, err := u.Append(0, strings.NewReader("abc"), 3); at != 3 || err != nil {
		t.Errorf("after refusals: %d, %v", at, err)
	}
	if err := u.Finish(t.Context(), 4, digest([]byte("abcd"))); !errors.Is(err, ErrLost) {
		t.Errorf("finish beyond the end: %v", err)
	}
	if err := u.Finish(t.Context(), 3, digest([]byte("abd"))); !errors.Is(err, ErrDigest) {
		t.Errorf("wrong digest: %v", err)
	}
	if l := leftovers(t, s); len(l) != 0 {
		t.Errorf("a refused upload left %v", l)
	}
	if s.Has(digest([]byte("abc"))) {
		t.Error("a refused upload became a blob")
	}
}

// A reader that breaks in the middle of a piece leaves the pieces before it untouched, and the upload goes on from there.
func TestUploadResumesAfterBrokenPiece(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	want := testBytes(9000)
	u, _ := s.NewUpload("r")
	if _, err := u.Append(0, bytes.NewReader(want[:3000]), 3000); err != nil {
		t.Fatal(err)
	}
	broken := io.MultiReader(bytes.NewReader(want[3000:5000]), iotest.ErrReader(io.ErrUnexpectedEOF))
	if at, err := u.Append(3000, broken, 3000); at != 3000 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("broken piece: %d, %v", at, err)
	}
	// The process may have died before it could cut the file: garbage follows the recorded length.
	f, err := os.OpenFile(filepath.Join(dir, uploadDir, "up-r"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("garbage from a piece that was cut short")
	f.Close()

	s2 := openStore(t, dir)
	u2, _ := s2.NewUpload("r")
	if _, err := u2.Append(3000, bytes.NewReader(want[3000:]), 6000); err != nil {
		t.Fatal(err)
	}
	if err := u2.Finish(t.Context(), 9000, digest(want)); err != nil {
		t.Fatal(err)
	}
	mustEqualBlob(t, s2, want)
}

// TestKilled starts this test again as a process that uploads, kills it at a random moment, and goes on: what the process
// reported as durable is there, no partial blob is ever visible, and the upload ends well.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("CONTENT_TEST_DIR"); dir != "" {
		at, _ := strconv.ParseInt(os.Getenv("CONTENT_TEST_AT"), 10, 64)
		uploadTillKilled(t, dir, at)
		return
	}
	dir := t.TempDir()
	want := testBytes(4 << 20)
	var at int64
	for round := 0; at < int64(len(want)); round++ {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "CONTENT_TEST_DIR="+dir, "CONTENT_TEST_AT="+strconv.FormatInt(at, 10))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		buf, done := bytes.Buffer{}, make(chan struct{})
		go func() { defer close(done); io.Copy(&buf, out) }()
		time.Sleep(time.Duration(20+round*30) * time.Millisecond)
		cmd.Process.Kill()
		<-done
		cmd.Wait()
		lines := strings.Split(buf.String(), "\n")
		for _, l := range lines[:len(lines)-1] { // the last one may be cut
			if n, err := strconv.ParseInt(l, 10, 64); err == nil {
				at = n
			}
		}
		s := openStore(t, dir)
		if blobs, _ := s.names(blobDir); len(blobs) > 1 || len(blobs) == 1 && blobs[0] != digest(want) {
			t.Fatalf("blobs after a kill: %v", blobs)
		}
		if s.Has(digest(want)) {
			mustEqualBlob(t, s, want)
			return
		}
		s.Close()
		if round > 200 {
			t.Fatal("no progress")
		}
	}
	s := openStore(t, dir)
	u, _ := s.NewUpload("k")
	if err := u.Finish(t.Context(), at, digest(want)); err != nil {
		t.Fatal(err)
	}
	mustEqualBlob(t, s, want)
}

func uploadTillKilled(t *testing.T, dir string, at int64) {
	s := openStore(t, dir)
	want := testBytes(4 << 20)
	u, _ := s.NewUpload("k")
	for at < int64(len(want)) {
		n := min(int64(64<<10), int64(len(want))-at)
		var err error
		if at, err = u.Append(at, bytes.NewReader(want[at:at+n]), n); err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString(strconv.FormatInt(at, 10) + "\n")
	}
	if err := u.Finish(t.Context(), at, digest(want)); err != nil {
		t.Fatal(err)
	}
}

func TestDiskFull(t *testing.T) {
	s := openStore(t, t.TempDir())
	room := 1000
	s.write = func(f *os.File, p []byte) (int, error) {
		n := min(room, len(p))
		room -= n
		f.Write(p[:n])
		if n < len(p) {
			return n, &os.PathError{Op: "write", Path: f.Name(), Err: syscall.ENOSPC}
		}
		return n, nil
	}
	if _, _, err := s.Put(bytes.NewReader(testBytes(5000))); !errors.Is(err, ErrNoSpace) {
		t.Errorf("Put on a full disk: %v", err)
	}
	room = 1500
	u, _ := s.NewUpload("f")
	want := testBytes(2000)
	if _, err := u.Append(0, bytes.NewReader(want[:1000]), 1000); err != nil {
		t.Fatal(err)
	}
	if at, err := u.Append(1000, bytes.NewReader(want[1000:]), 1000); at != 1000 || !errors.Is(err, ErrNoSpace) {
		t.Errorf("Append on a full disk: %d, %v", at, err)
	}
	room = 1 << 20 // somebody made room
	if _, err := u.Append(1000, bytes.NewReader(want[1000:]), 1000); err != nil {
		t.Fatal(err)
	}
	if err := u.Finish(t.Context(), 2000, digest(want)); err != nil {
		t.Fatal(err)
	}
	mustEqualBlob(t, s, want)
	if l := leftovers(t, s); len(l) != 0 {
		t.Errorf("left behind: %v", l)
	}
}

func TestNamesCannotLeaveTheStore(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, filepath.Join(dir, "store"))
	for _, bad := range []string{"", "../secret", "../../secret", "/etc/passwd", strings.Repeat("A", 64), strings.Repeat("g", 64), strings.Repeat("a", 63), strings.Repeat("a", 63) + "/"} {
		if _, err := s.Open(bad); !errors.Is(err, ErrBadName) {
			t.Errorf("Open(%q): %v", bad, err)
		}
		if s.Has(bad) || s.Path(bad) != "" {
			t.Errorf("Has or Path takes %q", bad)
		}
		if err := s.Remove(bad); !errors.Is(err, ErrBadName) {
			t.Errorf("Remove(%q): %v", bad, err)
		}
	}
	for _, bad := range []string{"", "..", "../x", "a/b", "a.b", strings.Repeat("a", 101)} {
		if _, err := s.NewUpload(bad); !errors.Is(err, ErrBadName) {
			t.Errorf("NewUpload(%q): %v", bad, err)
		}
	}
	// Even one who can write into the directory cannot make the store read what lies outside.
	sha := digest([]byte("anything"))
	if err := os.Symlink(secret, filepath.Join(dir, "store", blobDir, sha)); err != nil {
		t.Fatal(err)
	}
	if f, err := s.Open(sha); err == nil {
		f.Close()
		t.Error("a symbolic link led out of the store")
	}
	if s.Has(sha) {
		t.Error("a symbolic link counts as a blob")
	}
}

func TestSweep(t *testing.T) {
	s := openStore(t, t.TempDir())
	put := func(text string) string {
		sha, _, err := s.Put(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return sha
	}
	wanted, orphan, young := put("wanted"), put("orphan"), put("young")
	for _, name := range []string{"live", "dead"} {
		u, _ := s.NewUpload(name)
		if _, err := u.Append(0, strings.NewReader("abc"), 3); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-time.Hour)
	for _, p := range []string{blobDir + "/" + wanted, blobDir + "/" + orphan, blobDir + "/" + young, uploadDir + "/up-live", uploadDir + "/up-dead"} {
		if err := s.root.Chtimes(p, old, old); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Touch(young, time.Now()); err != nil {
		t.Fatal(err)
	}
	n, err := s.Sweep(time.Now().Add(-time.Minute), func(sha string) bool { return sha == wanted }, func(n string) bool { return n == "live" })
	if err != nil || n != 2 {
		t.Fatalf("Sweep = %d, %v", n, err)
	}
	if !s.Has(wanted) || !s.Has(young) || s.Has(orphan) {
		t.Error("the wrong blobs went")
	}
	if l := leftovers(t, s); len(l) != 1 || l[0] != "up-live" {
		t.Errorf("uploads left: %v", l)
	}
	if _, err := s.Touch(orphan, time.Now()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Touch of a swept blob: %v", err)
	}
}

func TestConcurrentPutsOfOneBlob(t *testing.T) {
	s := openStore(t, t.TempDir())
	want := testBytes(50_000)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, _, err := s.Put(bytes.NewReader(want)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	mustEqualBlob(t, s, want)
}
