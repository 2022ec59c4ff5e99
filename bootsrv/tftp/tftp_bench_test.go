package tftp

import (
	"fmt"
	"io"
	"testing"

	pin "github.com/pin/tftp/v3"
)

// BenchmarkTransfer is a 16 MB kernel, block by block and in windows.
func BenchmarkTransfer(b *testing.B) {
	o := &opener{files: map[string][]byte{"f": random(16 << 20)}}
	for _, block := range []int{1024, 1468} {
		for _, w := range []int{1, 4, 16} {
			b.Run(fmt.Sprintf("blksize=%d/windowsize=%d", block, w), func(b *testing.B) {
				s := start(b, o, Config{})
				b.SetBytes(16 << 20)
				for b.Loop() {
					got, err := dial(b, s).get("f", block, w, "blksize", fmt.Sprint(block), "windowsize", fmt.Sprint(w))
					if err != nil || len(got) != 16<<20 {
						b.Fatal(len(got), err)
					}
				}
			})
		}
	}
	b.Run("foreign client", func(b *testing.B) {
		s := start(b, o, Config{})
		b.SetBytes(16 << 20)
		for b.Loop() {
			c, err := pin.NewClient(s.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			c.SetBlockSize(1468)
			wt, err := c.Receive("f", "octet")
			if err != nil {
				b.Fatal(err)
			}
			if _, err := wt.WriteTo(io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
}
