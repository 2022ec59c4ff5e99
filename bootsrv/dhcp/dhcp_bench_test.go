package dhcp

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/bootsrv/view"
)

// BenchmarkDORA is discover, offer, request, acknowledgement with the lease synced to disk, 32 clients at once as Run does it.
func BenchmarkDORA(b *testing.B) {
	var holder view.Holder
	holder.Set(view.New(api.Snapshot{Subnets: []api.SnapSubnet{{ID: 1, VLANID: 1, CIDR: "10.0.0.0/8", DHCP: true, RackAddress: "10.0.0.1",
		Dynamic: []api.AddrRange{{Start: "10.1.0.0", End: "10.254.0.0"}}}}}))
	s, err := OpenStore(filepath.Join(b.TempDir(), "leases"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	h := NewHandler(Config{Source: &holder, Store: s, HasLoader: func(string) bool { return true }})
	l := Listener{VLANID: 1}
	var n atomic.Int64
	b.SetParallelism(workers)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := n.Add(1)
			mac := fmt.Sprintf("52:54:%02x:%02x:%02x:%02x", byte(i>>24), byte(i>>16), byte(i>>8), byte(i))
			o, why := h.Answer(packetOf(b, mac, discover, opt(93, 0, 7)), l)
			if o == nil {
				b.Error(why)
				return
			}
			a, why := h.Answer(packetOf(b, mac, request_, want(o.YourIPAddr.String()), server("10.0.0.1"), opt(93, 0, 7)), l)
			if a == nil || a.MessageType() != ack {
				b.Error(why, a)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "dora/s")
}
