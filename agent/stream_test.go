package agent

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// zeroReader gives zeros without end.
type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestTailBomb is an honest archive with more than can be waited for behind its end.
func TestTailBomb(t *testing.T) {
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = z.Write(archive(t, entry{Header: tar.Header{Name: "a"}, body: "x"}))
	if _, err := io.CopyN(z, zeroReader{}, maxTail+mib); err != nil {
		t.Fatal(err)
	}
	z.Close()
	_, root := sandbox(t)
	s, err := openStream(t.Context(), &b, false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	s.ahead()
	if err := extractTar(s, root, mib, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.finish(); err == nil || !strings.Contains(err.Error(), "follow its end") {
		t.Fatalf("got %v", err)
	}
}

// TestStreamEveryCompression unpacks a tar of each, to its very end.
func TestStreamEveryCompression(t *testing.T) {
	plain := archive(t, entry{Header: tar.Header{Name: "hello"}, body: strings.Repeat("world", 100_000)})
	for name, data := range map[string][]byte{"tar": plain, "gzip": pack(t, gzipped, plain), "bzip2": bzipped(t, plain), "xz": pack(t, xzed, plain), "zstd": pack(t, zstded, plain)} {
		for _, broken := range []bool{false, true} {
			src := io.Reader(bytes.NewReader(data))
			if broken {
				src = io.MultiReader(src, failingReader{errMismatch})
			}
			_, root := sandbox(t)
			s, err := openStream(t.Context(), src, false)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			s.ahead()
			err = extractTar(s, root, mib, nil)
			if err == nil {
				err = s.finish()
			}
			s.close()
			if broken != errors.Is(err, errMismatch) || !broken && err != nil {
				t.Errorf("%s, wrong digest %v: %v", name, broken, err)
			}
		}
	}
}

func TestFilterEndsWithItsReader(t *testing.T) {
	if find("/", "cat") == "" {
		t.Skip("no cat")
	}
	r, done, err := filter(t.Context(), zeroReader{}, find("/", "cat"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, r, mib); err != nil {
		t.Fatal(err)
	}
	done() // with the source far from its end
	r, done, err = filter(t.Context(), strings.NewReader("x"), find("/", "false"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); err == nil || !strings.Contains(err.Error(), "exit status 1") {
		t.Fatalf("a program that failed: %v", err)
	}
	done()
}
