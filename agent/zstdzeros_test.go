package agent

import (
	"bufio"
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// unpackBoth decodes a stream as it is and rewritten.
func unpackBoth(b []byte) (plain, rewritten []byte, perr, rerr error) {
	read := func(r io.Reader) ([]byte, error) {
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(8<<20))
		if err != nil {
			return nil, err
		}
		defer d.Close()
		return io.ReadAll(io.LimitReader(d, 64<<20))
	}
	plain, perr = read(bytes.NewReader(b))
	rewritten, rerr = read(&zstdZeros{r: bufio.NewReaderSize(bytes.NewReader(b), 4096)})
	return
}

func zstdSamples(t testing.TB) (out [][]byte) {
	r := rand.NewChaCha8([32]byte{3})
	data := make([]byte, 3*mib+77)
	_, _ = r.Read(data[500_000:900_000])
	for _, o := range [][]zstd.EOption{{}, {zstd.WithEncoderCRC(false)}, {zstd.WithSingleSegment(true)}, {zstd.WithEncoderLevel(zstd.SpeedBestCompression)}} {
		e, err := zstd.NewWriter(nil, o...)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e.EncodeAll(data, nil), e.EncodeAll(data[:100], nil), e.EncodeAll(nil, nil))
		e.Close()
	}
	skip := append([]byte{0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0}, "abc"...)
	return append(out, append(append(bytes.Clone(out[0]), skip...), out[1]...))
}

func TestZstdZeros(t *testing.T) {
	for i, b := range zstdSamples(t) {
		plain, rewritten, perr, rerr := unpackBoth(b)
		if perr != nil || rerr != nil || !bytes.Equal(plain, rewritten) {
			t.Errorf("%d: %d and %d bytes, %v, %v", i, len(plain), len(rewritten), perr, rerr)
		}
		if len(b) > 20 {
			if _, _, perr, rerr := unpackBoth(b[:len(b)-5]); (perr == nil) != (rerr == nil) {
				t.Errorf("%d cut off: %v, %v", i, perr, rerr)
			}
		}
	}
}

func FuzzZstdZeros(f *testing.F) {
	for _, b := range zstdSamples(f) {
		if len(b) < 2000 {
			f.Add(b)
		}
	}
	f.Add([]byte("\x28\xb5\x2f\xfd\x04\x58\x55\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		plain, rewritten, perr, rerr := unpackBoth(b)
		if (perr == nil) != (rerr == nil) || perr == nil && !bytes.Equal(plain, rewritten) {
			t.Fatalf("%d and %d bytes, %v, %v", len(plain), len(rewritten), perr, rerr)
		}
	})
}
