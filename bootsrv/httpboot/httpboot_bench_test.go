package httpboot

import (
	"bytes"
	"io"
	"net/http"
	"testing"
)

// BenchmarkImage is a 64 MB image by one client after another, from the page cache.
func BenchmarkImage(b *testing.B) {
	const size = 64 << 20
	s := newSite(b, nil, nil, bytes.Repeat([]byte("x"), size))
	b.SetBytes(size)
	for b.Loop() {
		resp, err := http.Get("http://" + s.addr + "/images/" + s.kernel)
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil || n != size {
			b.Fatal(n, err)
		}
	}
}

// BenchmarkConfig is boot configurations by many clients.
func BenchmarkConfig(b *testing.B) {
	s := newSite(b, nil, nil, []byte("k"))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			resp, err := http.Get("http://" + s.addr + "/ipxe.cfg-52:54:00:00:00:01")
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "configs/s")
}
