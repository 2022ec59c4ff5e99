package provisioner

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestSpans(t *testing.T) {
	for _, c := range []struct {
		cidr, first, last, hostFirst, hostLast string
		hosts                                  int64
	}{
		{"10.0.0.0/24", "10.0.0.0", "10.0.0.255", "10.0.0.1", "10.0.0.254", 254},
		{"10.0.0.0/31", "10.0.0.0", "10.0.0.1", "10.0.0.0", "10.0.0.1", 2},
		{"10.0.0.5/32", "10.0.0.5", "10.0.0.5", "10.0.0.5", "10.0.0.5", 1},
		{"0.0.0.0/1", "0.0.0.0", "127.255.255.255", "0.0.0.1", "127.255.255.254", 1<<31 - 2},
		{"2001:db8::/120", "2001:db8::", "2001:db8::ff", "2001:db8::1", "2001:db8::ff", 255},
		{"2001:db8::/64", "2001:db8::", "2001:db8::ffff:ffff:ffff:ffff", "2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", 1<<63 - 1},
	} {
		p := netip.MustParsePrefix(c.cidr)
		if w := prefixSpan(p); w.first != addr(c.first) || w.last != addr(c.last) {
			t.Errorf("%s spans %v-%v", c.cidr, w.first, w.last)
		}
		h := hostSpan(p)
		if h.first != addr(c.hostFirst) || h.last != addr(c.hostLast) || h.count() != c.hosts {
			t.Errorf("%s has hosts %v-%v, %d", c.cidr, h.first, h.last, h.count())
		}
	}
}

// layer and gaps, against a table of one entry an address.
func TestLayerAgainstTable(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }
	for range 2000 {
		lo, hi := r.IntN(20), 30+r.IntN(20)
		outer := span{at(lo), at(hi)}
		table := map[int][]string{}
		var uses []use
		for range r.IntN(8) {
			a := r.IntN(60)
			b := a + r.IntN(60-a)
			p := string(rune('a' + r.IntN(3)))
			uses = append(uses, use{span{at(a), at(b)}, []string{p}})
			for i := max(a, lo); i <= min(b, hi); i++ {
				if !slices.Contains(table[i], p) {
					table[i] = append(table[i], p)
					slices.Sort(table[i])
				}
			}
		}
		seen := map[int][]string{}
		layered := layer(uses, outer)
		for k, u := range layered {
			if k > 0 && layered[k-1].last.Next() == u.first && slices.Equal(layered[k-1].purposes, u.purposes) {
				t.Fatalf("neighbours were not joined: %v", layered)
			}
			for a := u.first; !u.last.Less(a); a = a.Next() {
				seen[int(a.As4()[3])] = u.purposes
			}
		}
		for i := lo; i <= hi; i++ {
			if !slices.Equal(seen[i], table[i]) {
				t.Fatalf("address %d: %v, want %v (uses %v)", i, seen[i], table[i], uses)
			}
		}
		free := map[int]bool{}
		for _, g := range gaps(slices.Clone(uses), outer) {
			for a := g.first; !g.last.Less(a); a = a.Next() {
				free[int(a.As4()[3])] = true
			}
		}
		for i := 0; i < 60; i++ {
			if want := i >= lo && i <= hi && table[i] == nil; free[i] != want {
				t.Fatalf("address %d free: %v, want %v (uses %v, outer %v)", i, free[i], want, uses, outer)
			}
		}
	}
}

func useOf(cidr string) *subnetUse {
	p := netip.MustParsePrefix(cidr)
	return &subnetUse{subnet: storage.Subnet{CIDR: cidr, Managed: true}, prefix: p}
}

func (u *subnetUse) ranged(kind, a, b string) *subnetUse {
	u.ranges = append(u.ranges, storage.IPRange{ID: int64(len(u.ranges) + 1), Type: kind, StartIP: addr(a), EndIP: addr(b)})
	return u
}

func (u *subnetUse) holding(list ...string) *subnetUse {
	for _, a := range list {
		u.held = append(u.held, addr(a))
	}
	return u
}

func (u *subnetUse) gateway(a string) *subnetUse { u.subnet.GatewayIP = &a; return u }

func TestPick(t *testing.T) {
	full := useOf("10.0.0.0/30").gateway("10.0.0.1").holding("10.0.0.2")
	unmanaged := useOf("10.0.0.0/24").ranged("reserved", "10.0.0.50", "10.0.0.52").holding("10.0.0.50")
	unmanaged.subnet.Managed = false
	seen := useOf("10.0.0.0/30")
	seen.observed = []netip.Addr{addr("10.0.0.1")}
	for name, c := range map[string]struct {
		u    *subnetUse
		want string
	}{
		"empty":                      {useOf("10.0.0.0/24"), "10.0.0.1"},
		"gateway first":              {useOf("10.0.0.0/24").gateway("10.0.0.1"), "10.0.0.2"},
		"smallest gap":               {useOf("10.0.0.0/24").gateway("10.0.0.1").ranged("dynamic", "10.0.0.100", "10.0.0.250"), "10.0.0.251"},
		"smallest gap, lowest of it": {useOf("10.0.0.0/24").holding("10.0.0.3").ranged("reserved", "10.0.0.10", "10.0.0.254"), "10.0.0.1"},
		"an observed address":        {seen, "10.0.0.2"},
		"IPv6 reserves its start":    {useOf("2001:db8::/64"), "2001:db8::1:0:0"},
		"unmanaged":                  {unmanaged, "10.0.0.51"},
		"full":                       {full, ""},
	} {
		ip, ok := c.u.pick()
		if ok != (c.want != "") || ok && ip != addr(c.want) {
			t.Errorf("%s: picked %v, %v; want %q", name, ip, ok, c.want)
		}
	}
}

func TestStatistics(t *testing.T) {
	u := useOf("172.16.1.0/24").gateway("172.16.1.1").ranged("dynamic", "172.16.1.200", "172.16.1.209").holding("172.16.1.10")
	st := u.statistics()
	if st.Total != 254 || st.Unavailable != 12 || st.Available != 242 || st.Largest != 189 || st.UsageText != "5%" || st.AvailableText != "95%" {
		t.Errorf("statistics %+v", st)
	}
	var n int64
	for _, r := range st.Ranges {
		n += r.Count
	}
	if n != 254 {
		t.Errorf("the ranges cover %d addresses", n)
	}
	if useOf("10.0.0.0/24").inUse() != nil {
		t.Error("an empty IPv4 subnet has something in use")
	}
	v6 := useOf("2001:db8::/96").inUse()
	if len(v6) != 1 || v6[0].purposes[0] != purposeAnycast || v6[0].count() != 1 {
		t.Errorf("an empty IPv6 subnet uses %v", v6)
	}
	empty := useOf("10.0.0.0/24").statistics()
	if empty.SuggestedGateway != "10.0.0.1" || empty.SuggestedDynamic == nil || empty.SuggestedDynamic.First != addr("10.0.0.192") ||
		empty.SuggestedDynamic.Last != addr("10.0.0.254") {
		t.Errorf("suggestions %q %+v", empty.SuggestedGateway, empty.SuggestedDynamic)
	}
}

// world is a subnet and machines with automatic links to it.
type world struct {
	s      *Service
	subnet storage.Subnet
	nodes  []int64
}

func newWorld(t *testing.T, db *storage.DB, cidr string, machines int) *world {
	t.Helper()
	w := &world{s: New(Config{DB: db})}
	p := netip.MustParsePrefix(cidr)
	whole := prefixSpan(p)
	err := db.Write(t.Context(), func(tx *storage.Tx) error {
		w.nodes = nil
		w.subnet = storage.Subnet{VLANID: storage.DefaultVLANID, Name: cidr, CIDR: cidr, FirstIP: whole.first, LastIP: whole.last, Managed: true}
		if err := tx.InsertSubnet(&w.subnet); err != nil {
			return err
		}
		for i := range machines {
			n := storage.Node{SystemID: fmt.Sprintf("m%05d", i), Hostname: fmt.Sprintf("host%d", i), DomainID: storage.DefaultDomainID,
				ZoneID: storage.DefaultZoneID, Status: storage.StatusAllocated}
			if err := tx.InsertNode(&n); err != nil {
				return err
			}
			w.nodes = append(w.nodes, n.ID)
			nic := storage.Interface{NodeID: n.ID, Name: "eth0", MACAddress: fmt.Sprintf("52:54:00:00:%02x:%02x", i/256, i%256), Enabled: true}
			if err := tx.InsertInterface(&nic); err != nil {
				return err
			}
			if err := tx.InsertIPAddress(&storage.IPAddress{InterfaceID: &nic.ID, SubnetID: &w.subnet.ID, AllocType: storage.AllocAuto}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) claim(ctx context.Context, node int64) error {
	return w.s.DB.Write(ctx, func(tx *storage.Tx) error { return w.s.claimAutoAddresses(tx, node) })
}

func (w *world) release(ctx context.Context, node int64) error {
	return w.s.DB.Write(ctx, func(tx *storage.Tx) error { return w.s.releaseAutoAddresses(tx, node) })
}

// Invariant 2: whatever sixteen callers do at once, an address is held by at most one interface, and never one that is reserved,
// leased, the gateway, or special to the network.
func TestAddressesAreHeldOnce(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		const machines = 24
		w := newWorld(t, db, "10.0.0.0/27", machines) // 30 hosts, of which 18 are free
		gw := "10.0.0.1"
		err := db.Write(t.Context(), func(tx *storage.Tx) error {
			w.subnet.GatewayIP = &gw
			if err := tx.UpdateSubnet(&w.subnet); err != nil {
				return err
			}
			if err := tx.InsertIPRange(&storage.IPRange{SubnetID: w.subnet.ID, Type: "dynamic", StartIP: addr("10.0.0.20"), EndIP: addr("10.0.0.25")}); err != nil {
				return err
			}
			if err := tx.PutLease(&storage.Lease{IP: addr("10.0.0.9"), MAC: "aa:aa:aa:aa:aa:aa", SubnetID: w.subnet.ID, Expires: tx.Now().Add(time.Hour)}); err != nil {
				return err
			}
			return tx.InsertIPRange(&storage.IPRange{SubnetID: w.subnet.ID, Type: "reserved", StartIP: addr("10.0.0.2"), EndIP: addr("10.0.0.5")})
		})
		if err != nil {
			t.Fatal(err)
		}
		forbidden := func(a netip.Addr) bool {
			n := a.As4()[3]
			return n == 0 || n == 1 || n >= 2 && n <= 5 || n == 9 || n >= 20 && n <= 25 || n == 31
		}
		var wg sync.WaitGroup
		for g := range 16 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(g), 99))
				for range 12 {
					node := w.nodes[r.IntN(machines)]
					err := w.claim(t.Context(), node)
					var e *Error
					if err != nil && (!errors.As(err, &e) || e.Kind != Unavailable) {
						t.Errorf("claim: %v", err)
						return
					}
					if err := db.Read(t.Context(), func(tx *storage.Tx) error { return checkHeld(t, tx, forbidden) }); err != nil {
						t.Error(err)
						return
					}
					if r.IntN(2) == 0 {
						if err := w.release(t.Context(), w.nodes[r.IntN(machines)]); err != nil {
							t.Errorf("release: %v", err)
							return
						}
					}
				}
			})
		}
		wg.Wait()

		// Fill it up: exactly the free ones are given, then 503.
		for _, n := range w.nodes {
			if err := w.release(t.Context(), n); err != nil {
				t.Fatal(err)
			}
		}
		given, refused := 0, 0
		for _, n := range w.nodes {
			err := w.claim(t.Context(), n)
			var e *Error
			switch {
			case err == nil:
				given++
			case errors.As(err, &e) && e.Kind == Unavailable && e.Text == "No more IPs available in subnet: 10.0.0.0/27.":
				refused++
			default:
				t.Fatal(err)
			}
		}
		if given != 18 || refused != machines-18 {
			t.Errorf("%d given, %d refused", given, refused)
		}
	})
}

func checkHeld(t *testing.T, tx *storage.Tx, forbidden func(netip.Addr) bool) error {
	all, err := tx.IPAddressesOf(nil)
	if err != nil {
		return err
	}
	seen := map[netip.Addr]int64{}
	for _, a := range all {
		if !a.IP.IsValid() || a.AllocType == storage.AllocDiscovered {
			continue
		}
		if other, ok := seen[a.IP]; ok {
			t.Errorf("%v is held by links %d and %d", a.IP, other, a.ID)
		}
		seen[a.IP] = a.ID
		if forbidden(a.IP) {
			t.Errorf("%v was given out", a.IP)
		}
	}
	return nil
}

// Finding free addresses costs the same number of statements however full the subnet is.
func TestClaimTakesConstantQueries(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		w := newWorld(t, db, "10.1.0.0/22", 300)
		var counts []int64
		for _, n := range w.nodes {
			ctx, c := storage.WithCounter(t.Context())
			if err := w.claim(ctx, n); err != nil {
				t.Fatal(err)
			}
			counts = append(counts, c.N())
		}
		if counts[0] != counts[len(counts)-1] {
			t.Errorf("%d statements for the first claim, %d for the last", counts[0], counts[len(counts)-1])
		}
	})
}

func TestLeaseReports(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		w := newWorld(t, db, "10.0.0.0/24", 2)
		mac := func(i int) string { return fmt.Sprintf("52:54:00:00:00:%02x", i) }
		err := db.Write(t.Context(), func(tx *storage.Tx) error {
			return tx.InsertIPRange(&storage.IPRange{SubnetID: w.subnet.ID, Type: "dynamic", StartIP: addr("10.0.0.100"), EndIP: addr("10.0.0.200")})
		})
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		lease := func(ip string, m int, at time.Duration) api.LeaseReport {
			return api.LeaseReport{At: now.Add(at), IP: ip, MAC: mac(m), Hostname: "h", Expires: now.Add(time.Hour + at)}
		}
		gone := func(ip string, m int, at time.Duration) api.LeaseReport {
			return api.LeaseReport{At: now.Add(at), IP: ip, MAC: mac(m), Released: true}
		}
		report := func(r ...api.LeaseReport) {
			t.Helper()
			if err := w.s.RecordLeases(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		expect := func(what string, want map[string]string) {
			t.Helper()
			err := db.Read(t.Context(), func(tx *storage.Tx) error {
				got := map[string]string{}
				all, err := tx.InterfaceBundles(nil)
				for _, nics := range all {
					for _, b := range nics {
						for _, a := range b.Links {
							if a.AllocType == storage.AllocDiscovered {
								got[a.IP.String()] = b.MACAddress
							}
						}
					}
				}
				if len(got) != len(want) {
					t.Errorf("%s: observed %v, want %v", what, got, want)
				}
				for ip, m := range want {
					if got[ip] != m {
						t.Errorf("%s: observed %v, want %v", what, got, want)
					}
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		first := lease("10.0.0.100", 0, 0)
		report(first, lease("10.0.0.50", 1, 0), api.LeaseReport{IP: "x", MAC: "y", Expires: now.Add(time.Hour)})
		expect("a lease; one outside the range and a malformed one are left out", map[string]string{"10.0.0.100": mac(0)})
		report(first, first)
		expect("reported again", map[string]string{"10.0.0.100": mac(0)})
		report(lease("10.0.0.101", 0, time.Second))
		expect("another address for the interface", map[string]string{"10.0.0.101": mac(0)})
		report(lease("10.0.0.101", 1, 2*time.Second))
		expect("the address goes to another", map[string]string{"10.0.0.101": mac(1)})
		report(gone("10.0.0.101", 0, 3*time.Second))
		expect("released by one that has it no more", map[string]string{"10.0.0.101": mac(1)})
		report(gone("10.0.0.101", 1, 3*time.Second))
		expect("released", map[string]string{})
		report(lease("10.0.0.102", 0, 10*time.Second))
		report(gone("10.0.0.102", 0, 4*time.Second))
		expect("an old release comes late", map[string]string{"10.0.0.102": mac(0)})
	})
}

func TestInitialLinks(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		w := newWorld(t, db, "10.0.0.0/24", 0)
		n := storage.Node{SystemID: "aaaaaa", Hostname: "a", DomainID: storage.DefaultDomainID, ZoneID: storage.DefaultZoneID}
		nics := []storage.Interface{
			{Name: "eth0", MACAddress: "52:54:00:00:00:01", Enabled: true},
			{Name: "eth1", MACAddress: "52:54:00:00:00:02", Enabled: true},
			{Name: "eth2", MACAddress: "52:54:00:00:00:03"},
		}
		err := db.Write(t.Context(), func(tx *storage.Tx) error {
			if err := tx.InsertNode(&n); err != nil {
				return err
			}
			for i := range nics {
				nics[i].NodeID = n.ID
				if err := tx.InsertInterface(&nics[i]); err != nil {
					return err
				}
			}
			if err := tx.InsertIPRange(&storage.IPRange{SubnetID: w.subnet.ID, Type: "dynamic", StartIP: addr("10.0.0.100"), EndIP: addr("10.0.0.200")}); err != nil {
				return err
			}
			n.BootInterfaceID = &nics[1].ID
			if err := tx.UpdateNode(&n); err != nil {
				return err
			}
			if err := w.s.recordLeases(tx, []api.LeaseReport{{IP: "10.0.0.100", MAC: nics[1].MACAddress, At: tx.Now(), Expires: tx.Now().Add(time.Hour)}}); err != nil {
				return err
			}
			if err := w.s.setInitialLinks(tx, n.ID, "auto"); err != nil {
				return err
			}
			return w.s.setInitialLinks(tx, n.ID, "auto") // a second commissioning changes nothing
		})
		if err != nil {
			t.Fatal(err)
		}
		err = db.Read(t.Context(), func(tx *storage.Tx) error {
			all, err := tx.InterfaceBundles([]int64{n.ID})
			if err != nil {
				return err
			}
			var got []string
			for _, b := range all[n.ID] {
				for _, a := range b.Links {
					got = append(got, fmt.Sprintf("%s:%d:%v", b.Name, a.AllocType, a.SubnetID != nil))
				}
			}
			want := []string{"eth0:1:false", "eth1:6:true", "eth1:0:true"}
			if !slices.Equal(got, want) {
				t.Errorf("links %v, want %v", got, want)
			}
			if b := all[n.ID][1]; b.VLANID == nil || *b.VLANID != storage.DefaultVLANID {
				t.Error("the boot interface is not on the VLAN of its lease")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// What strangers put into paths and parameters never panics, and what is found is really there.
func FuzzPathSpecifiers(f *testing.F) {
	c := &storage.Catalogue{
		Fabrics: map[int64]*storage.Fabric{0: {ID: 0, Name: "fabric-0"}},
		VLANs:   map[int64]*storage.VLAN{5001: {ID: 5001, FabricID: 0}, 5002: {ID: 5002, FabricID: 9, VID: 7}},
		Spaces:  map[int64]*storage.Space{1: {ID: 1, Name: "mgmt"}},
		Subnets: map[int64]*storage.Subnet{1: {ID: 1, VLANID: 5001, Name: "lab", CIDR: "10.0.0.0/24"}, 2: {ID: 2, VLANID: 99, Name: "x:y", CIDR: "2001:db8::/64"}},
	}
	for _, s := range []string{"1", "lab", "10.0.0.0/24", "cidr:10.0.0.9/24", "ip:10.0.0.9", "vlan:5001", "vid:0", "space:undefined", "fabric:fabric-0", "x:y",
		"subnet-1", "id:", ":", "cidr:", "-1", "99999999999999999999", "//node[@id='x']", "count(//a[b]) > 1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		if sn, err := FindSubnet(c, spec); err == nil && c.Subnets[sn.ID] != sn {
			t.Errorf("%q found %v", spec, sn)
		}
		if v, err := FindFabricVLAN(c, spec, spec); err == nil && c.VLANs[v.ID] != v {
			t.Errorf("%q found %v", spec, v)
		}
		_, _ = FindSpace(c, spec)
		_ = findAnyVLAN(c, spec)
		if spec != "" {
			_ = definitionProblem(spec)
		}
		if p, bad := parseCIDR(spec); bad == "" {
			h := hostSpan(p)
			if h.last.Less(h.first) || !p.Contains(h.first) || !p.Contains(h.last) || h.count() < 1 {
				t.Errorf("%q has hosts %v-%v", spec, h.first, h.last)
			}
		}
	})
}

// One claim in a network where 10,000 addresses are held.
func BenchmarkClaimAmong10000(b *testing.B) {
	u := useOf("10.0.0.0/16")
	for i := range 10_000 {
		u.take(netip.AddrFrom4([4]byte{10, 0, byte(1 + i/200), byte(1 + i%200)}))
	}
	for b.Loop() {
		if _, ok := u.pick(); !ok {
			b.Fatal("full")
		}
	}
}
