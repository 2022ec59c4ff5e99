package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
	"golang.org/x/sys/unix"
)

// benchSize is the size of the image; a quarter of it is data, in runs of a MiB, half of that compressible as programs are.
const benchSize = 2 << 30

// benchImage makes the image and its packed forms in dir.
func benchImage(b *testing.B, dir string) (raw string) {
	raw = filepath.Join(dir, "image.raw")
	f, err := os.Create(raw)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(benchSize); err != nil {
		b.Fatal(err)
	}
	if err := writeGPT(f, benchSize, 512, newUUID(), []tablePart{{number: 1, typ: typeESP, uuid: newUUID(), start: mib, end: 100 * mib},
		{number: 2, typ: typeLinux, uuid: newUUID(), start: 100 * mib, end: benchSize - 2*mib}}); err != nil {
		b.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("\xeb\x63"), 0); err != nil {
		b.Fatal(err)
	}
	r := rand.NewChaCha8([32]byte{7})
	words := make([]byte, 1<<16)
	_, _ = r.Read(words)
	block := make([]byte, mib)
	for at := int64(4 * mib); at < benchSize-4*mib; at += 4 * mib {
		_, _ = r.Read(block[:len(block)/2])
		for i := len(block) / 2; i < len(block); i += 32 { // pieces that came before, in another order
			copy(block[i:], words[int(r.Uint64()%uint64(len(words)-32)):][:32])
		}
		if _, err := f.WriteAt(block, at); err != nil {
			b.Fatal(err)
		}
	}
	return raw
}

func benchRun(b *testing.B, name string, args ...string) {
	b.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		b.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// BenchmarkWholeDisk writes a 2 GiB image, a quarter full, and prints each figure beside that of the program that people use for it: the
// same source, the same new file, everything on the disk at the end (fsync). The agent also receives the image by HTTP, checks its SHA-256
// and reads back what it wrote, which nobody else does; the time without the reading back is the one to compare. Set
// INGOT_BENCH_DIR to a folder on the disk to measure (default: the temporary folder). Run it with -benchtime 3x.
func BenchmarkWholeDisk(b *testing.B) {
	if testing.Short() {
		b.Skip("it writes many GiB")
	}
	dir, err := os.MkdirTemp(os.Getenv("INGOT_BENCH_DIR"), "ingot-bench-")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	raw := benchImage(b, dir)
	out := filepath.Join(dir, "out")
	sh := func(format string, args ...any) []string {
		return []string{"sh", "-ec", "rm -f " + out + "; " + fmt.Sprintf(format, args...) + "; sync " + out}
	}
	forms := []struct {
		typ, file string
		pack      []string
		others    [][]string
	}{
		{"root-dd.raw", raw, nil, [][]string{
			sh("dd if=%s of=%s bs=4M conv=sparse status=none", raw, out),
			sh("qemu-img convert -f raw -O raw -n -W -t writeback %s %s", raw, out+" || qemu-img convert -f raw -O raw "+raw+" "+out),
			sh("bmaptool -q copy --bmap %s.bmap %s %s", raw, raw, out),
		}},
		{"root-dd.zst", raw + ".zst", []string{"zstd", "-q", "-f", "-3", "-T0", raw, "-o", raw + ".zst"}, [][]string{
			sh("zstd -q -d --sparse %s.zst -o %s", raw, out),
			sh("bmaptool -q copy --bmap %s.bmap %s.zst %s", raw, raw, out),
		}},
		{"root-dd.gz", raw + ".gz", []string{"sh", "-c", "gzip -1 -c " + raw + " > " + raw + ".gz"}, [][]string{
			sh("gzip -dc %s.gz | dd of=%s bs=4M iflag=fullblock conv=sparse status=none", raw, out),
			sh("bmaptool -q copy --bmap %s.bmap %s.gz %s", raw, raw, out),
		}},
		{"root-dd.xz", raw + ".xz", []string{"sh", "-c", "xz -0 -T0 -c " + raw + " > " + raw + ".xz"}, [][]string{
			sh("xz -dc -T0 %s.xz | dd of=%s bs=4M iflag=fullblock conv=sparse status=none", raw, out),
		}},
	}
	if _, err := exec.LookPath("bmaptool"); err == nil {
		benchRun(b, "bmaptool", "create", "-o", raw+".bmap", raw)
	}
	for _, f := range forms {
		packed := func(b *testing.B) {
			if _, err := os.Stat(f.file); err != nil {
				benchRun(b, f.pack[0], f.pack[1:]...)
			}
			b.ResetTimer()
		}
		for _, o := range f.others {
			line := o[2]
			line = strings.TrimSuffix(strings.TrimPrefix(line, "rm -f "+out+"; "), "; sync "+out)
			program, _, _ := strings.Cut(line, " ")
			if _, err := exec.LookPath(program); err != nil {
				b.Logf("%s is not installed", program)
				continue
			}
			b.Run(f.typ+"/"+program, func(b *testing.B) {
				packed(b)
				b.SetBytes(benchSize)
				for range b.N {
					benchRun(b, o[0], o[1:]...)
				}
			})
		}
		b.Run(f.typ+"/ingot-agent", func(b *testing.B) {
			packed(b)
			benchAgent(b, f.file, f.typ, out)
		})
	}
}

func benchAgent(b *testing.B, file, typ, out string) {
	srv := httptest.NewServer(http.FileServer(http.Dir(filepath.Dir(file))))
	defer srv.Close()
	in, err := os.Open(file)
	if err != nil {
		b.Fatal(err)
	}
	h := sha256.New()
	n, err := io.Copy(h, in)
	in.Close()
	if err != nil {
		b.Fatal(err)
	}
	img := api.ImageSource{Path: filepath.Base(file), SHA256: hex.EncodeToString(h.Sum(nil)), Size: n, Type: typ}
	c := NewClient(func(string, ...any) {})
	b.SetBytes(benchSize)
	var write, verify time.Duration
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		_ = os.Remove(out)
		f, err := os.Create(out)
		if err != nil {
			b.Fatal(err)
		}
		if err := f.Truncate(benchSize); err != nil {
			b.Fatal(err)
		}
		f.Close()
		t := target{disk: Disk{Name: "out", Path: out, Type: "virtio", Size: benchSize, BlockSize: 512}, verified: true}
		b.StartTimer()
		d, err := newDownload(b.Context(), c, srv.URL+"/"+filepath.Base(file), img, b.Logf)
		if err != nil {
			b.Fatal(err)
		}
		start, done := time.Now(), time.Time{}
		if err := writeWholeDisk(b.Context(), t, d, typ, "uefi", func(format string, _ ...any) {
			if strings.Contains(format, "hold data") {
				done = time.Now()
			}
		}); err != nil {
			b.Fatal(err)
		}
		write, verify = write+done.Sub(start), verify+time.Since(done)
		d.Close()
	}
	b.ReportMetric(write.Seconds()/float64(b.N), "s-write")
	b.ReportMetric(verify.Seconds()/float64(b.N), "s-readback")
	var st unix.Stat_t
	if err := unix.Stat(out, &st); err == nil {
		b.ReportMetric(float64(st.Blocks*512)/mib, "MiB-on-disk")
	}
}
