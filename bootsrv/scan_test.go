package bootsrv

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
)

const arpHead = "IP address       HW type     Flags       HW address            Mask     Device\n"

// fakeKernel answers for some addresses once they were probed.
type fakeKernel struct {
	probed map[netip.Addr]bool
	there  map[string]string
	closed bool
}

func (k *fakeKernel) scanner() *scanner {
	k.probed = map[netip.Addr]bool{}
	return &scanner{
		probe: func(a netip.Addr) error { k.probed[a] = true; return errors.New("nobody reads this") },
		table: func() ([]byte, error) {
			var b strings.Builder
			b.WriteString(arpHead)
			for ip, mac := range k.there {
				if k.probed[netip.MustParseAddr(ip)] {
					fmt.Fprintf(&b, "%-16s 0x1         0x2         %s     *        eth3\n", ip, mac)
				}
			}
			return []byte(b.String()), nil
		},
		close: func() { k.closed = true },
	}
}

func TestScan(t *testing.T) {
	k := &fakeKernel{there: map[string]string{"10.0.1.7": "52:54:00:AA:00:01", "10.0.0.255": "52:54:00:aa:00:02", "10.9.0.1": "52:54:00:aa:00:03"}}
	got, err := scan(t.Context(), k.scanner(), []string{"10.0.1.9/22"})
	slices.SortFunc(got, func(a, b api.NeighbourReport) int { return strings.Compare(a.IP, b.IP) })
	want := []api.NeighbourReport{{IP: "10.0.0.255", MAC: "52:54:00:aa:00:02", Interface: "eth3"}, {IP: "10.0.1.7", MAC: "52:54:00:aa:00:01", Interface: "eth3"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("saw %+v, %v", got, err)
	}
	if len(k.probed) != 1024 || k.probed[netip.MustParseAddr("10.0.4.0")] {
		t.Errorf("probed %d addresses", len(k.probed))
	}
	for _, bad := range []string{"nonsense", "2001:db8::/64"} {
		if _, err := scan(t.Context(), k.scanner(), []string{bad}); err == nil {
			t.Errorf("%s was scanned", bad)
		}
	}
	if _, err := scan(t.Context(), k.scanner(), []string{"10.0.0.0/8"}); err == nil || len(k.probed) != scanMost {
		t.Errorf("a /8: %d probes, %v", len(k.probed), err)
	}
	if got, err := scan(t.Context(), k.scanner(), []string{"255.255.255.0/24"}); err != nil || len(got) != 0 || len(k.probed) != 256 { // the end of all addresses
		t.Errorf("the last network: %d probes, %v", len(k.probed), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	slow := k.scanner()
	slow.wait = time.Hour
	if _, err := scan(ctx, slow, []string{"10.0.0.0/24"}); !errors.Is(err, context.Canceled) {
		t.Errorf("a scan that is called off: %v", err)
	}
}

func TestARPTable(t *testing.T) {
	got := arpTable([]byte(arpHead +
		"10.0.0.1 0x1 0x2 52:54:00:AA:00:01 * eth0\n" +
		"10.0.0.2 0x1 0x0 00:00:00:00:00:00 * eth0\n" + // nobody answered
		"10.0.0.3 0x1 0x6 52:54:00:aa:00:03 * eth0\n" + // permanent
		"10.0.0.4 0x100 0x2 52:54:00:aa:00:04 * tun0\n" + // no Ethernet
		"10.0.0.5 0x1 0x2 00:00:00:00:00:00 * eth0\n" +
		"nonsense 0x1 0x2 52:54:00:aa:00:05 * eth0\nshort\n"))
	if len(got) != 2 || got[0] != (api.NeighbourReport{IP: "10.0.0.1", MAC: "52:54:00:aa:00:01", Interface: "eth0"}) || got[1].IP != "10.0.0.3" {
		t.Errorf("%+v", got)
	}
}

// A scan is a job like any other: claimed, carried out, its result posted.
func TestScanJob(t *testing.T) {
	d := &desk{jobs: make(chan api.RackJobs, 10), lost: map[int64]bool{}}
	l := &link{base: "http://x", hc: &http.Client{Transport: HandlerTransport(d)}}
	k := &fakeKernel{there: map[string]string{"10.0.0.7": "52:54:00:aa:00:01"}}
	e := &executor{link: func() *link { return l }, slots: 2, max: 20 * time.Millisecond, log: quiet, scanner: func() (*scanner, error) { return k.scanner(), nil }}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.run(ctx) }()
	d.jobs <- api.RackJobs{Jobs: []api.RackJob{{ID: 1, Kind: api.JobScan, Attempt: 1, LeaseSeconds: 1, Scan: &api.ScanOrder{CIDRs: []string{"10.0.0.0/29"}}}}}
	waitFor(t, "the result", func() bool { return len(d.got()) == 1 })
	if r := d.got()[0]; r.Power != nil || r.Scan == nil || len(r.Scan.Neighbours) != 1 || r.Scan.Neighbours[0].IP != "10.0.0.7" || r.Scan.Error != "" || !k.closed {
		t.Errorf("result %+v", r)
	}
	cancel()
	<-done
}
