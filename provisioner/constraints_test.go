package provisioner

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

func TestParseStorage(t *testing.T) {
	for in, want := range map[string]string{
		"10":                           "10",
		"root:8":                       "root:8",
		"root:0,1:10(ssd)":             "root:0,1:10(ssd)",
		"8.5":                          "8.5",
		".5":                           "0.5",
		"5.":                           "5",
		"10(partition,ssd)":            "10(partition,ssd)",
		"10(ssd,partition)":            "10(partition,ssd)",
		"a:1,b:2(x),c:3(x,y),d:4(z,w)": "a:1,c:3(x,y),d:4(z,w),b:2(x)", // the root stays first, then the most tags
		"1(a b)":                       "1(a b)",
		"1.234567":                     "1.234",
		"2000:5":                       "2000:5",
	} {
		got, ok := parseStorage(in)
		if !ok || got.String() != want {
			t.Errorf("%q: %v %v, want %s", in, got, ok, want)
		}
	}
	for _, in := range []string{"", ",", "x", "root:", ":5", "5()", "5(", "5(a", "5,", ",5", "5,,6", "5 ,6", " 5", "1.2.3", ".", "5GB", "-5", "a-b:5", "5(a)b", "5(a)(b)",
		"1e3", "99999999999999999999", "é:5", "root:5;x:6"} {
		if got, ok := parseStorage(in); ok {
			t.Errorf("%q is taken for %v", in, got)
		}
	}
}

const gb = 1_000_000_000

// TestStorageMatch holds the choice of devices to MAAS's rules.
func TestStorageMatch(t *testing.T) {
	rootOnPartition := storage.PartDisk{ID: 1, Size: 100 * gb, Table: true, Tags: []string{"ssd", "sata"}, Partitions: []storage.PartPartition{
		{ID: 10, Size: gb, Filesystem: true}, {ID: 11, Size: 50 * gb, Filesystem: true, Root: true, Tags: []string{"fast"}}, {ID: 12, Size: 40 * gb, Tags: []string{"spare"}}}}
	plain := &storage.MachineParts{Disks: []storage.PartDisk{rootOnPartition,
		{ID: 2, Size: 500 * gb, Tags: []string{"hdd"}}, {ID: 3, Size: 200 * gb, Tags: []string{"ssd"}}, {ID: 4, Size: 200 * gb, Tags: []string{"ssd", "nvme"}},
		{ID: 5, Size: 999 * gb, Filesystem: true, Tags: []string{"hdd"}}, {ID: 6, Size: 999 * gb, Table: true, Tags: []string{"hdd"}}}}
	lvm := &storage.MachineParts{Disks: []storage.PartDisk{{ID: 1, Size: 100 * gb, Table: true, Partitions: []storage.PartPartition{{ID: 10, Size: 99 * gb, Filesystem: true}}},
		{ID: 2, Size: 30 * gb, Filesystem: true, Root: true}}}
	bare := &storage.MachineParts{Disks: []storage.PartDisk{{ID: 1, Size: 100 * gb}, {ID: 2, Size: 100 * gb}}}
	for _, c := range []struct {
		what, text string
		m          *storage.MachineParts
		want       string // the labels, or why not
	}{
		{"the disk that carries /", "r:100", plain, "map[r:[1]]"},
		{"the root is never larger", "r:101", plain, "its root of 100(ssd,sata) does not meet r:101"},
		{"all tags of the root", "r:0(ssd,sata)", plain, "map[r:[1]]"},
		{"a tag that the root lacks", "r:0(ssd,nvme)", plain, "its root of 100(ssd,sata) does not meet r:0(ssd,nvme)"},
		{"the partition that carries /", "r:50(partition,fast)", plain, "map[r:[partition:11]]"},
		{"the partition is smaller than its disk", "r:51(partition)", plain, "its root of 50(partition,fast) does not meet r:51(partition)"},
		{"the smallest unused that fits", "r:0,a:100", plain, "map[a:[3] r:[1]]"},
		{"two of them", "r:0,a:100,b:100", plain, "map[a:[3] b:[4] r:[1]]"},
		{"the item with more tags chooses first", "r:0,a:100(ssd),b:100(ssd,nvme)", plain, "map[a:[3] b:[4] r:[1]]"},
		{"used disks do not count", "r:0,a:600", plain, "it has no unused disk left for a:600"},
		{"each disk once", "r:0,a:1(hdd),b:1(hdd)", plain, "it has no unused disk left for b:1(hdd)"},
		{"more items than disks", "r:0,1,1,1,1,1,1,1", plain, "it has no unused disk left for 1"},
		{"a partition without file system", "r:0,p:40(partition,spare)", plain, "map[p:[partition:12] r:[1]]"},
		{"no such partition", "r:0,p:41(partition)", plain, "it has no unused partition left for p:41(partition)"},
		{"labels alone are told", "0,a:100,200(ssd)", plain, "map[a:[4]]"},
		{"nothing is told without labels", "0,1", plain, "map[]"},
		{"one label twice", "r:0,r:1(hdd)", plain, "map[r:[1 2]]"},
		{"/ on a virtual device", "r:30", lvm, "map[r:[2]]"},
		{"the size of the virtual device counts", "r:31", lvm, "its root of 30 does not meet r:31"},
		{"no root at all", "r:0", bare, "it has no root file system for r:0"},
	} {
		w, ok := parseStorage(c.text)
		if !ok {
			t.Fatal(c.text)
		}
		got := w.fails(c.m)
		if got == "" {
			got = fmt.Sprint(w.labels(c.m))
		}
		if got != c.want {
			t.Errorf("%s: %s: %s, want %s", c.what, c.text, got, c.want)
		}
		if weaker := w.relaxed(c.m); weaker != nil && !matched(weaker.match(c.m)) {
			t.Errorf("%s: %s is relaxed to %s, which does not fit either", c.what, c.text, weaker)
		}
	}
	// An earlier item gives way where a later one could not be met otherwise.
	tight := &storage.MachineParts{Disks: []storage.PartDisk{rootOnPartition, {ID: 2, Size: 10 * gb, Tags: []string{"a", "b", "c"}}, {ID: 3, Size: 20 * gb, Tags: []string{"a", "b"}}}}
	w, _ := parseStorage("0,x:5(a,b),y:5(b,c)")
	if got := fmt.Sprint(w.labels(tight)); got != "map[x:[3] y:[2]]" {
		t.Error(got)
	}
}

func TestParseLabels(t *testing.T) {
	for in, want := range map[string]string{
		"a:space=1":                    "[{a a:space=1 [[space 1]]}]",
		"a:space=1;b-2_x:name=eth0":    "[{a a:space=1 [[space 1]]} {b-2_x b-2_x:name=eth0 [[name eth0]]}]",
		"a:tag=x&&y,tag=z,not_ip=::1":  "[{a a:tag=x&&y,tag=z,not_ip=::1 [[tag x&&y] [tag z] [not_ip ::1]]}]",
		"9:subnet=cidr:10.0.0.0/8":     "[{9 9:subnet=cidr:10.0.0.0/8 [[subnet cidr:10.0.0.0/8]]}]",
		"a:space=1;a:space=2":          `Duplicate label "a" in the interfaces constraint.`,
		"space=1":                      `Malformed interfaces constraint, "space=1".`,
		"a:space":                      `Malformed interfaces constraint, "a:space".`,
		"a:":                           `Malformed interfaces constraint, "a:".`,
		"a:=1":                         `Malformed interfaces constraint, "a:=1".`,
		"a:space=":                     `Malformed interfaces constraint, "a:space=".`,
		"-a:space=1":                   `Malformed interfaces constraint, "-a:space=1".`,
		"a:space=1;":                   `Malformed interfaces constraint, "a:space=1;".`,
		":space=1":                     `Malformed interfaces constraint, ":space=1".`,
		"a b:space=1":                  `Malformed interfaces constraint, "a b:space=1".`,
		"a:space=1,,name=x":            `Malformed interfaces constraint, "a:space=1,,name=x".`,
		"a:space=1;b":                  `Malformed interfaces constraint, "a:space=1;b".`,
		"a:name=x:y=z":                 "[{a a:name=x:y=z [[name x:y=z]]}]",
		" a:space=1 ; b:vid=untagged ": "[{a a:space=1 [[space 1]]} {b b:vid=untagged [[vid untagged]]}]",
	} {
		labels, problem := parseLabels(in)
		if got := problem + strings.TrimPrefix(fmt.Sprint(labels), "[]"); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func nobody(int64) bool { return false }

// park is a site with fabrics, spaces, subnets and machines that differ in everything that constraints look at.
type park struct {
	*site
	r          *rand.Rand
	second     storage.Fabric
	vlan       storage.VLAN
	space      storage.Space
	far, other storage.Subnet
}

func newPark(t testing.TB, db *storage.DB, machines int) *park {
	x := &park{site: newSite(t, db), r: rand.New(rand.NewPCG(1, 2))}
	class := "10g"
	x.write(func(tx *storage.Tx) error {
		x.space, x.second = storage.Space{Name: "dmz"}, storage.Fabric{Name: "second", ClassType: &class}
		if err := errors.Join(tx.InsertSpace(&x.space), tx.InsertFabric(&x.second)); err != nil {
			return err
		}
		name := "twenty"
		x.vlan = storage.VLAN{FabricID: x.second.ID, VID: 20, MTU: 1500, Name: &name, SpaceID: &x.space.ID}
		if err := tx.InsertVLAN(&x.vlan); err != nil {
			return err
		}
		x.far = storage.Subnet{VLANID: x.vlan.ID, Name: "far", CIDR: "10.20.0.0/16", FirstIP: netip.MustParseAddr("10.20.0.0"), LastIP: netip.MustParseAddr("10.20.255.255"), Managed: true}
		x.other = storage.Subnet{VLANID: x.vlan.ID, Name: "other", CIDR: "2001:db8::/64", FirstIP: netip.MustParseAddr("2001:db8::"), LastIP: netip.MustParseAddr("2001:db8::ffff:ffff:ffff:ffff"), Managed: true}
		if err := errors.Join(tx.InsertSubnet(&x.far), tx.InsertSubnet(&x.other)); err != nil {
			return err
		}
		for _, n := range []string{"a", "b", "c"} {
			if err := errors.Join(tx.InsertZone(&storage.Zone{Name: "zone-" + n}), tx.InsertPool(&storage.Pool{Name: "pool-" + n}), tx.InsertTag(&storage.Tag{Name: n})); err != nil {
				return err
			}
		}
		for i := range machines {
			if err := x.machine(tx, i); err != nil {
				return err
			}
		}
		return nil
	})
	return x
}

func (x *park) one(list ...string) string { return list[x.r.IntN(len(list))] }

func (x *park) some(list ...string) (out []string) {
	for _, s := range list {
		if x.r.IntN(2) == 0 {
			out = append(out, s)
		}
	}
	return out
}

func (x *park) machine(tx *storage.Tx, i int) error {
	r, pool := x.r, int64(x.r.IntN(4))
	n := storage.Node{SystemID: fmt.Sprintf("r%05d", i), Hostname: fmt.Sprintf("r%d", i), ZoneID: int64(1 + r.IntN(4)), DomainID: 0, PoolID: &pool,
		Architecture: x.one("amd64/generic", "arm64/generic"), CPUCount: int64(r.IntN(8)), Memory: int64(r.IntN(8) * 1024), CPUSpeed: int64(r.IntN(4000)),
		PowerState: x.one("on", "off"), PowerType: "ipmi", Status: storage.StatusReady, EphemeralDeploy: r.IntN(8) == 0}
	switch r.IntN(8) {
	case 0:
		n.Status, n.OwnerID = storage.StatusDeployed, &x.user.ID
	case 1:
		n.Status = storage.StatusNew
	case 2:
		n.Locked = true
	}
	if err := tx.InsertNode(&n); err != nil {
		return err
	}
	for _, tag := range x.some("a", "b", "c") {
		if err := tx.TagNode(n.ID, tag); err != nil {
			return err
		}
	}
	for j := range r.IntN(4) {
		vlan := []int64{storage.DefaultVLANID, x.vlan.ID}[r.IntN(2)]
		nic := storage.Interface{NodeID: n.ID, Name: fmt.Sprintf("eth%d", j), Type: x.one("physical", "physical", "bond"), MACAddress: fmt.Sprintf("02:00:00:00:%02x:%02x", i, j),
			VLANID: &vlan, LinkSpeed: int64(r.IntN(3) * 1000), Tags: x.some("sriov", "dpdk", "odd&tag")}
		if r.IntN(6) == 0 {
			nic.VLANID = nil
		}
		if err := tx.InsertInterface(&nic); err != nil {
			return err
		}
		for k, sn := range []storage.Subnet{x.sn, x.far} {
			if r.IntN(2) == 0 {
				continue
			}
			a := storage.IPAddress{InterfaceID: &nic.ID, SubnetID: &sn.ID, AllocType: storage.AllocAuto}
			if r.IntN(2) == 0 {
				a.AllocType, a.IP = storage.AllocSticky, netip.AddrFrom4([4]byte{10, []byte{1, 20}[k], byte(i + 1), byte(j + 1)})
			}
			if err := tx.InsertIPAddress(&a); err != nil {
				return err
			}
		}
	}
	for j := range r.IntN(5) {
		d := storage.BlockDevice{NodeID: n.ID, Name: fmt.Sprintf("sd%c", 'a'+j), Type: x.one("physical", "virtual"), Size: int64(1+r.IntN(10)) * 100 * gb, BlockSize: 512,
			Tags: x.some("ssd", "hdd", "nvme", "50%_<off>")}
		if err := tx.InsertBlockDevice(&d); err != nil {
			return err
		}
		root := "/"
		fs := storage.Filesystem{NodeID: n.ID, Fstype: "ext4", MountPoint: &root}
		if j > 0 {
			fs.MountPoint = nil
		}
		switch r.IntN(3) {
		case 0:
			if j > 0 && r.IntN(2) == 0 {
				break
			}
			fs.BlockDeviceID = &d.ID
			if err := tx.InsertFilesystem(&fs); err != nil {
				return err
			}
		case 1:
			d.PartitionTable = "GPT"
			if err := tx.UpdateBlockDevice(&d); err != nil {
				return err
			}
			for k := range 2 {
				p := storage.Partition{BlockDeviceID: d.ID, Number: int64(k + 1), UUID: fmt.Sprintf("00000000-0000-4000-8000-%04d%04d%04d", i, j, k), Size: d.Size / 2, Tags: x.some("fast")}
				if err := tx.InsertPartition(&p); err != nil {
					return err
				}
				if k == 0 {
					fs.PartitionID = &p.ID
					if err := tx.InsertFilesystem(&fs); err != nil {
						return err
					}
				}
			}
		}
	}
	for range r.IntN(3) {
		if err := tx.SaveNodeDevice(&storage.HardwareDevice{NodeID: n.ID, Bus: storage.BusPCIE, VendorID: x.one("8086", "10de"), ProductID: x.one("1533", "20b0"),
			VendorName: x.one("Intel Corporation", "NVIDIA Corporation"), ProductName: x.one("Ünique", "GA100"), Driver: x.one("igb", "nvidia")}); err != nil {
			return err
		}
	}
	return nil
}

// pairs draws constraints.
func (x *park) pairs(count int) []Pair {
	p := func(name string, values ...string) func() Pair { return func() Pair { return Pair{name, values} } }
	choices := []func() Pair{
		func() Pair { return Pair{"mem", []string{fmt.Sprint(x.r.IntN(6000))}} },
		func() Pair { return Pair{"cpu_count", []string{fmt.Sprintf("%.1f", x.r.Float64()*8)}} },
		func() Pair { return Pair{"cpu_speed", []string{fmt.Sprint(x.r.IntN(4000)), "100"}} },
		func() Pair { return Pair{"link_speed", []string{fmt.Sprint(x.r.IntN(2500))}} },
		p("tags", x.one("a", "b,c", "a b", "c")),
		p("not_tags", x.one("a", "b", "nothing")),
		p("zone", x.one("zone-a", "default"), "zone-b"),
		p("not_in_zone", x.one("zone-a", "default")),
		p("pool", x.one("pool-a", "default")),
		p("not_in_pool", x.one("pool-a", "default"), "pool-b"),
		p("arch", x.one("amd64", "arm64/generic", "arm")),
		p("not_arch", x.one("amd64/generic", "x/y")),
		p("name", fmt.Sprintf("r%d", x.r.IntN(60))),
		p("name", fmt.Sprintf("r%d.maas", x.r.IntN(60))),
		p("name", "r1", "r2"),
		p("system_id", fmt.Sprintf("r%05d", x.r.IntN(60)), "r00001"),
		p("subnets", x.one("lab", "cidr:10.1.0.0/16", "ip:10.1.2.3", "vid:0", "fabric:fabric-0", "space:undefined", "interface:eth0", "name:far", "vlan:name:twenty,fabric:second")),
		p("not_subnets", x.one("name:lab", "space:dmz", "interface:type:bond,not_name:eth1")),
		p("vlans", x.one("untagged", "20", "vid:20", "twenty", "space:dmz", "subnet:far", "!20", "fabric:class:10g")),
		p("not_vlans", x.one("untagged", "20")),
		p("fabrics", x.one("second", "fabric-0", "nowhere")),
		p("not_fabrics", x.one("second", "nowhere")),
		p("fabric_classes", x.one("10g", "1g")),
		p("not_fabric_classes", x.one("10g", "1g")),
		p("power_state", x.one("on", "off")),
		p("not_power_state", x.one("on", "off")),
		p("owner", x.one("user", "nobody")),
		p("not_owner", x.one("user", "nobody")),
		p("deployment_target", x.one("disk", "memory")),
		p("not_deployment_target", x.one("disk", "memory")),
		p("storage", x.one("0", "root:300", "root:200(ssd)", "0,a:100", "r:0,a:200(ssd),b:100", "0(partition)", "r:0,p:50(partition,fast)", "r:100(partition),a:1,b:1", "0,x:1(50%_<off>)",
			"r:0,a:300(ssd,nvme),b:200(hdd),c:100")),
		p("interfaces", x.one("a:space=dmz", "a:space=undefined", "a:fabric=second;b:subnet=lab", "a:tag=sriov,tag=dpdk", "a:tag=sriov&&dpdk,not_vid=20", "a:link_speed=1000,type=physical",
			"a:mode=unconfigured;b:vlan=twenty", "a:subnet_cidr=10.20.0.0/16,not_subnet=lab", "a:not_fabric=second", "a:ip=10.1.3.1", "a:vid=20,vid=untagged", "a:hostname=r3", "a:fabric_class=10g,name=eth1",
			"a:not_tag=sriov,not_name=eth0;b:not_space=dmz", "x:not_id=1")),
		p(x.one("pod", "not_pod", "pod_type", "not_pod_type"), "host"),
		p("devices", x.one("vendor_id=8086", "vendor_id=10DE,product_name=ga100", "vendor_name=intel corporation", "commissioning_driver=NVIDIA,product_id=1533", "product_name=ünique", "vendor_id=ffff")),
	}
	var out []Pair
	for range count {
		c := choices[x.r.IntN(len(choices))]()
		if !slices.ContainsFunc(out, func(o Pair) bool { return o.Name == c.Name }) {
			out = append(out, c)
		}
	}
	return out
}

// TestQueryAgreesWithFacts draws machines and constraints at random: the search, the filter of lists, and the pure judgement that explains
// must agree on every machine, in the same order. When nothing is left, each relaxation that is offered must give a machine.
func TestQueryAgreesWithFacts(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		x := newPark(t, db, 60)
		admin := Actor{User: x.admin, Admin: true}
		met, relaxed, weaker := map[string]int{}, map[string]int{}, 0
		for range 500 {
			pairs := x.pairs(1 + x.r.IntN(4))
			var answer *Explanation
			err := db.Read(x.as(x.admin), func(tx *storage.Tx) error {
				constraints, err := x.s.parseConstraints(tx, pairs)
				if err != nil {
					return err
				}
				found, _, err := x.s.search(tx, constraints, 1000, nobody, nil)
				if err != nil {
					return err
				}
				first, _, err := x.s.search(tx, constraints, 1, nobody, nil)
				if err != nil {
					return err
				}
				facts, err := tx.Facts(storage.NodeFilter{Types: []int64{storage.NodeMachine}}, wantedParts(constraints))
				if err != nil {
					return err
				}
				var byQuery, free, all []string
				for _, c := range found {
					byQuery = append(byQuery, c.SystemID)
				}
				for i := range facts {
					c := &facts[i]
					if slices.ContainsFunc(constraints, func(k constraint) bool { return k.fails(c) != "" }) {
						continue
					}
					all = append(all, c.SystemID)
					if mayTake(admin)(c) == "" {
						free = append(free, c.SystemID)
					}
				}
				if !slices.Equal(byQuery, free) {
					t.Errorf("%v: the search finds %v, the facts say %v", pairs, byQuery, free)
				}
				if len(found) > 0 && (len(first) != 1 || first[0].SystemID != byQuery[0]) {
					t.Errorf("%v: the first is %v, not %s", pairs, first, byQuery[0])
				}
				for _, c := range found {
					for _, k := range constraints {
						met[k.name]++
						if k.storage != nil && len(k.storage.labels(c.parts)) != strings.Count(k.values[0], ":") {
							t.Errorf("%v: %s has %v", pairs, c.SystemID, k.storage.labels(c.parts))
						}
					}
				}
				slices.Sort(all)
				var listed []string
				bundles, err := x.s.Machines(x.as(x.admin), []int64{storage.NodeMachine}, pairs)
				if err != nil {
					return err
				}
				for _, b := range bundles {
					listed = append(listed, b.Node.SystemID)
				}
				if slices.Sort(listed); !slices.Equal(listed, all) {
					t.Errorf("%v: the list has %v, the facts say %v", pairs, listed, all)
				}
				answer = explain(facts, constraints, mayTake(admin))
				if last := answer.Constraints; len(last) > 0 && last[len(last)-1].Left != len(free) {
					t.Errorf("%v: %d left of %d", pairs, last[len(last)-1].Left, len(free))
				}
				return nil
			})
			if err != nil {
				t.Fatalf("%v: %v", pairs, err)
			}
			for i, k := range answer.Constraints {
				if i > 0 && k.Left > answer.Constraints[i-1].Left || k.Left > k.Alone || k.Alone > answer.Available {
					t.Errorf("%v: %+v", pairs, answer.Constraints)
				}
			}
			for _, m := range answer.Nearest {
				if len(m.Reasons) == 0 {
					t.Errorf("%v: %s missed nothing", pairs, m.SystemID)
				}
			}
			for _, r := range answer.Relax {
				relaxed[r.Constraint]++
				var other []Pair
				for _, p := range pairs {
					if p.Name != r.Constraint {
						other = append(other, p)
					} else if len(r.Values) > 0 {
						weaker++
						other = append(other, Pair{p.Name, r.Values})
					}
				}
				err := db.Read(x.as(x.admin), func(tx *storage.Tx) error {
					constraints, err := x.s.parseConstraints(tx, other)
					if err != nil {
						return err
					}
					found, _, err := x.s.search(tx, constraints, 1000, nobody, nil)
					if err == nil && !slices.ContainsFunc(found, func(c *candidate) bool { return c.SystemID == r.SystemID }) {
						t.Errorf("%v: %v was to give %s, and gives %d others", pairs, other, r.SystemID, len(found))
					}
					return err
				})
				if err != nil {
					t.Fatalf("%v was to be the way out of %v: %v", other, pairs, err)
				}
			}
		}
		for name := range constraintParsers {
			if strings.Contains(name, "pod") { // true of all machines, or of none
				continue
			}
			if name != "owner" && met[name] == 0 {
				t.Errorf("%s was never met", name)
			}
			if relaxed[name] == 0 && name != "not_owner" {
				t.Errorf("%s was never relaxed", name)
			}
		}
		if weaker < 100 {
			t.Errorf("only %d weaker constraints were offered", weaker)
		}
	})
}

// TestSpecifiers looks specifiers up.
func TestSpecifiers(t *testing.T) {
	x := newPark(t, storagetest.New(t), 3)
	lab, far, other := x.sn.ID, x.far.ID, x.other.ID
	twenty := x.vlan.ID
	for _, c := range []struct {
		field  string
		values []string
		want   []int64
		errors string
	}{
		{field: "subnets", values: []string{itoa(lab)}, want: []int64{lab}},
		{field: "subnets", values: []string{"0x" + fmt.Sprintf("%x", lab)}, want: []int64{lab}},
		{field: "subnets", values: []string{"subnet-" + itoa(far)}, want: []int64{far}},
		{field: "subnets", values: []string{"lab", "far"}, want: []int64{lab, far}},
		{field: "subnets", values: []string{"10.20.0.0/16"}, want: []int64{far}},
		{field: "subnets", values: []string{"cidr:2001:db8::/64"}, want: []int64{other}},
		{field: "subnets", values: []string{"2001:db8::/64"}, want: []int64{other}},
		{field: "subnets", values: []string{"ip:2001:db8::5"}, want: []int64{other}},
		{field: "subnets", values: []string{"ip:10.1.2.3", "|name:far"}, want: []int64{lab, far}},
		{field: "subnets", values: []string{"fabric:second"}, want: []int64{far, other}},
		{field: "subnets", values: []string{"fabric:name:second,class:10g"}, want: []int64{far, other}},
		{field: "subnets", values: []string{"fabric:name:second,!class:10g"}},
		{field: "subnets", values: []string{"fabric:" + itoa(x.second.ID)}, want: []int64{far, other}},
		{field: "subnets", values: []string{"fabric:fabric-" + itoa(x.second.ID)}, want: []int64{far, other}},
		{field: "subnets", values: []string{"fabric:second", "!name:other"}, want: []int64{far}},
		{field: "subnets", values: []string{"fabric:second", "not_other"}, want: []int64{far}},
		{field: "subnets", values: []string{"fabric:second", "&name:other"}, want: []int64{other}},
		{field: "subnets", values: []string{"!name:other"}, want: []int64{lab, far}},
		{field: "subnets", values: []string{"vlan:20"}, want: []int64{far, other}},
		{field: "subnets", values: []string{"vlan:id:" + itoa(twenty)}, want: []int64{far, other}},
		{field: "subnets", values: []string{"vlan:subnet:far"}, want: []int64{far, other}},
		{field: "subnets", values: []string{"vlan:subnet:vlan:subnet:name:far"}, want: []int64{far, other}},
		{field: "subnets", values: []string{"vid:untagged"}, want: []int64{lab}},
		{field: "subnets", values: []string{"space:dmz"}, want: []int64{far, other}},
		{field: "subnets", values: []string{"space:" + itoa(x.space.ID)}, want: []int64{far, other}},
		{field: "subnets", values: []string{"space:space-" + itoa(x.space.ID)}, want: []int64{far, other}},
		{field: "subnets", values: []string{"space:subnet:far"}, want: []int64{far, other}},
		{field: "subnets", values: []string{"space:undefined"}, want: []int64{lab}},
		{field: "subnets", values: []string{"space:nowhere"}, errors: "No Space matches the given query."},
		{field: "subnets", values: []string{"interface:name:nosuch"}},
		{field: "subnets", values: []string{"interface:hostname:r0,type:token-ring"}},
		{field: "subnets", values: []string{"interface:id:x"}, errors: "invalid: map[subnets:[Invalid interface id: number required.]]"},
		{field: "subnets", values: []string{"vid:5000"}, errors: "invalid: map[subnets:[VID must be between 0 and 4094.]]"},
		{field: "subnets", values: []string{"nonsense:5"}},
		{field: "subnets", values: []string{""}},
		{field: "subnets", values: []string{strings.Repeat("vlan:subnet:", 9) + "lab"}, errors: "invalid: map[subnets:[The specifier has too many levels.]]"},
		{field: "vlans", values: []string{"20"}, want: []int64{twenty}},
		{field: "vlans", values: []string{"id:20"}},
		{field: "vlans", values: []string{"untagged", "twenty"}, want: []int64{storage.DefaultVLANID, twenty}},
		{field: "vlans", values: []string{"vid:0x14"}, want: []int64{twenty}},
		{field: "vlans", values: []string{"name:twenty"}, want: []int64{twenty}},
		{field: "vlans", values: []string{"fabric:second"}, want: []int64{twenty}},
		{field: "vlans", values: []string{"space:dmz"}, want: []int64{twenty}},
		{field: "vlans", values: []string{"subnet:ip:10.20.9.9"}, want: []int64{twenty}},
		{field: "vlans", values: []string{"vid:4095"}, errors: "invalid: map[vlans:[VID must be between 0 and 4094.]]"},
		{field: "vlans", values: []string{"vid:x"}, errors: "invalid: map[vlans:[VID must be between 0 and 4094.]]"},
	} {
		err := x.db.Read(context.Background(), func(tx *storage.Tx) error {
			p := &constraintParser{tx: tx, s: x.s, fields: fieldErrors{}}
			r, err := p.resolver(c.field)
			if err != nil {
				return err
			}
			find := r.subnets
			if c.field == "vlans" {
				find = r.vlans
			}
			got, err := find(c.values)
			if err == nil && !slices.Equal(got, append([]int64{}, c.want...)) {
				t.Errorf("%s %q: %v, want %v", c.field, c.values, got, c.want)
			}
			return err
		})
		if got := fmt.Sprint(err); err != nil && got != c.errors || err == nil && c.errors != "" {
			t.Errorf("%s %q: %v, want %q", c.field, c.values, err, c.errors)
		}
	}
	// Two spaces by one specifier are one too many.
	x.write(func(tx *storage.Tx) error { return tx.InsertSpace(&storage.Space{Name: "lan"}) })
	_, err := x.s.Allocate(x.as(x.user), AllocateRequest{Constraints: []Pair{{"subnets", []string{"space:dmz,|lan"}}}})
	if kindOf(err) != Forbidden || err.Error() != "Too many Space objects match the given query." {
		t.Error(err)
	}
}

// TestConstraintTexts holds refusals of constraints to MAAS's texts.
func TestConstraintTexts(t *testing.T) {
	x := newPark(t, storagetest.New(t), 3)
	for _, c := range []struct{ name, value, text string }{
		{"storage", "nonsense", `Malformed storage constraint, "nonsense".`},
		{"storage", "root:8,", `Malformed storage constraint, "root:8,".`},
		{"interfaces", "a:colour=red", "Unknown interfaces constraint: 'colour"},
		{"interfaces", "a:not_mode=unconfigured", "Unknown interfaces constraint: 'not_mode"},
		{"interfaces", "a:not_type=bond", "Unknown interfaces constraint: 'not_type"},
		{"interfaces", "a:not_link_speed=5", "Unknown interfaces constraint: 'not_link_speed"},
		{"interfaces", "a:id=x", "Invalid interface id: number required."},
		{"interfaces", "a:vid=9999", "VID must be between 0 and 4094."},
		{"interfaces", "a:link_speed=fast", "Invalid link speed: number required."},
		{"interfaces", "a:ip=x", "Enter a valid IPv4 or IPv6 address."},
		{"interfaces", "a:mode=auto", "Unknown interface mode: 'auto'. The only one is unconfigured."},
		{"devices", "colour=red", "Unknown devices constraint: 'colour"},
		{"devices", "vendor_id", `Malformed devices constraint, "vendor_id".`},
		{"fabric", "x", "No such constraint."},
		{"ephemeral_deploy", "true", "No such constraint."},
		{"power_state", "x", "Select a valid choice. x is not one of the available choices."},
		{"deployment_target", "x", "Select a valid choice. x is not one of the available choices."},
		{"vlans", "nosuch", "No matching VLANs found."},
		{"not_vlans", "nosuch", "No matching VLANs found."},
		{"not_subnets", "nosuch", "No matching subnets found."},
		{"tags", strings.Repeat("a", maxConstraint+1), "Ensure this value has at most 65536 characters (it has 65537)."},
	} {
		_, err := x.s.Allocate(x.as(x.user), AllocateRequest{Constraints: []Pair{{c.name, []string{c.value}}}})
		var e *Error
		if !errors.As(err, &e) || e.Kind != Invalid || len(e.Fields[c.name]) != 1 || e.Fields[c.name][0] != c.text {
			t.Errorf("%s=%.40s: %v, want %s", c.name, c.value, err, c.text)
		}
	}
	// All errors come together.
	_, err := x.s.Allocate(x.as(x.user), AllocateRequest{Constraints: []Pair{{"storage", []string{"x"}}, {"vlans", []string{"vid:x"}}, {"bogus", []string{"1"}}, {"mem", []string{"1"}}}})
	if e := new(Error); !errors.As(err, &e) || len(e.Fields) != 3 {
		t.Error(err)
	}
	// The last value of a repeated constraint counts; a text of one character is none.
	for _, p := range []Pair{{"storage", []string{"x", "0"}}, {"interfaces", []string{"broken", "a:name=nosuch"}}, {"devices", []string{"broken", "vendor_id=x"}}} {
		_, err := x.s.Allocate(x.as(x.user), AllocateRequest{Constraints: []Pair{{"mem", []string{"99999999"}}, p}})
		want := fmt.Sprintf(`No available machine matches constraints: [('mem', ['99999999']), ('%s', ['%s', '%s'])] (resolved to "`, p.Name, p.Values[0], p.Values[1])
		if kindOf(err) != Conflict || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), p.Name+"="+p.Values[1]) {
			t.Error(err)
		}
	}
	if _, err := x.s.Allocate(x.as(x.admin), AllocateRequest{DryRun: true, Constraints: []Pair{{"interfaces", []string{";"}}}}); err != nil {
		t.Error(err)
	}
}

// TestAllocateOnceComplex: many ask at once for machines by their disks and interfaces, through two regions, while somebody changes those
// machines' tags. None gets what another got, all that fit are given out, and what each gets meets what it asked for.
func TestAllocateOnceComplex(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		x := newSite(t, db)
		const machines, clients = 48, 16
		storagetest.FleetOf(t, db, machines, 5, 6)
		services := []*Service{x.s, New(Config{DB: db, Power: testDrivers()})}
		requests := [][]Pair{
			{{"mem", []string{"8192"}}, {"cpu_count", []string{"4"}}, {"tags", []string{"virtual"}}, {"storage", []string{"root:100,data:1(ssd)"}}, {"interfaces", []string{"net:subnet=fleet"}}},
			{{"storage", []string{"root:1(ssd),a:1,b:1"}}, {"interfaces", []string{"a:name=eth0;b:name=eth4"}}},
			{{"interfaces", []string{"a:vid=0,tag=uplink"}}, {"zone", []string{"default"}}},
			{{"mem", []string{"150000"}}, {"storage", []string{"root:1,a:1(hdd)"}}},
			{{"mem", []string{"1"}}},
		}
		services[1].claims.window = 3 // what lies beyond is searched for outside of the write
		var (
			mu    sync.Mutex
			taken = map[string]bool{}
			wg    sync.WaitGroup
		)
		stop := make(chan struct{})
		var churn sync.WaitGroup
		churn.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprintf("n%05x", i%machines)
				if err := db.Write(context.Background(), func(tx *storage.Tx) error {
					n, err := tx.Node(id)
					if err != nil {
						return err
					}
					return tx.TagNode(n.ID, "churn")
				}); err != nil {
					t.Error(err)
					return
				}
			}
		})
		for c := range clients {
			wg.Go(func() {
				for i := c; ; i++ {
					pairs := requests[i%len(requests)]
					a, err := services[c%2].Allocate(x.as(x.admin), AllocateRequest{Constraints: pairs})
					if kindOf(err) == Conflict && strings.HasPrefix(err.Error(), "No available machine") {
						if i%len(requests) == len(requests)-1 {
							return
						}
						continue
					}
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					if taken[a.Machine.Node.SystemID] {
						t.Errorf("%s was given twice", a.Machine.Node.SystemID)
					}
					taken[a.Machine.Node.SystemID] = true
					mu.Unlock()
					for label, ids := range a.Matches.Storage {
						if len(ids) != 1 || !slices.ContainsFunc(a.Machine.Disks, func(d *storage.DiskBundle) bool { return d.ID == ids[0] }) {
							t.Errorf("%s: %v is not of the machine", label, ids)
						}
					}
					for label, ids := range a.Matches.Interfaces {
						if len(ids) == 0 || !slices.ContainsFunc(a.Machine.Interfaces, func(n *storage.InterfaceBundle) bool { return n.ID == ids[0] }) {
							t.Errorf("%s: %v is not of the machine", label, ids)
						}
					}
				}
			})
		}
		wg.Wait()
		close(stop)
		churn.Wait()
		if len(taken) != machines {
			t.Fatalf("%d of %d machines were given out", len(taken), machines)
		}
	})
}
