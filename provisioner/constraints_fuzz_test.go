package provisioner

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

// FuzzStorageGrammar: what is taken is written again in a form that means the same, and machines are judged by it without a fault.
func FuzzStorageGrammar(f *testing.F) {
	for _, s := range []string{"root:8,1:10(ssd)", "0(partition),a:1(x,y),5.5", "1,1,1,1", "a:.5(%,_)", "9(partition,partition)", "(((", "1()", "1:1:1"} {
		f.Add(s)
	}
	m := &storage.MachineParts{Disks: []storage.PartDisk{{ID: 1, Size: 100 * gb, Table: true, Tags: []string{"ssd"}, Partitions: []storage.PartPartition{{ID: 7, Size: gb, Root: true, Filesystem: true},
		{ID: 8, Size: gb, Tags: []string{"x"}}}}, {ID: 2, Size: 5 * gb, Tags: []string{"x", "y"}}, {ID: 3, Size: 50 * gb}, {ID: 4, Size: 50 * gb, Tags: []string{"ssd", "x"}}}}
	f.Fuzz(func(t *testing.T, text string) {
		w, ok := parseStorage(text)
		if !ok {
			return
		}
		again, ok := parseStorage(w.String())
		if !ok || again.String() != w.String() {
			t.Fatalf("%q is read as %s, and that as %s", text, w, again)
		}
		got := w.match(m)
		taken := map[any]int{}
		for i, p := range got {
			if p == nil {
				continue
			}
			if !w[i].fits(*p) {
				t.Fatalf("%q: %s got %v", text, w[i], *p)
			}
			if i > 0 {
				if taken[p.key()]++; taken[p.key()] > 1 {
					t.Fatalf("%q: %v was given twice", text, p.key())
				}
			}
		}
		if matched(got) != (w.fails(m) == "") {
			t.Fatalf("%q: %v and %q", text, got, w.fails(m))
		}
		if weaker := w.relaxed(m); weaker != nil {
			if read, ok := parseStorage(weaker.String()); !ok || !matched(read.match(m)) {
				t.Fatalf("%q is relaxed to %s, which does not fit", text, weaker)
			}
		}
		w.labels(m)
	})
}

// FuzzSpecifiers looks strangers' specifiers, interfaces and devices up: each is understood or refused with an error that the wire knows.
func FuzzSpecifiers(f *testing.F) {
	for _, s := range []string{"interface:type:physical,!hostname:x", "fabric:class:10g,|space:subnet:ip:::1", "vlan:subnet:vlan:0x14", "space:undefined", "not_lab", "&|!", "id:", ":",
		"interface:id:1,|link_speed:1e3", "a:space=1,not_subnet=cidr:10.0.0.0/8;b:tag=x&&y,mode=unconfigured", "a:ip=fe80::1%eth0", "vendor_id=8086,product_name=é",
		strings.Repeat("vlan:subnet:", 20)} {
		f.Add(s)
	}
	x := newPark(f, storagetest.New(f), 8)
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4096 || strings.ContainsRune(text, 0) {
			t.Skip() // the binder stops NUL
		}
		for _, name := range []string{"subnets", "not_vlans", "interfaces", "devices", "fabrics", "storage"} {
			err := x.db.Read(x.as(x.user), func(tx *storage.Tx) error {
				constraints, err := x.s.parseConstraints(tx, []Pair{{name, []string{text}}})
				if err != nil {
					return err
				}
				found, _, err := x.s.search(tx, constraints, 100, nobody, nil)
				if err != nil {
					return err
				}
				facts, err := tx.Facts(storage.NodeFilter{Types: []int64{storage.NodeMachine}}, wantedParts(constraints))
				if err != nil {
					return err
				}
				free := 0
				for i := range facts {
					c := &facts[i]
					if mayTake(Actor{User: x.user})(c) == "" && (len(constraints) == 0 || constraints[0].fails(c) == "") {
						free++
					}
				}
				if free != len(found) {
					t.Errorf("%s=%q: the search finds %d, the facts %d", name, text, len(found), free)
				}
				explain(facts, constraints, mayTake(Actor{User: x.user}))
				return nil
			})
			var e *Error
			if err != nil && !(errors.As(err, &e) && (e.Kind == Invalid || e.Kind == NotFound || e.Kind == Forbidden)) && !errors.Is(err, storage.ErrInvalid) && !errors.Is(err, context.Canceled) {
				t.Errorf("%s=%q: %v", name, text, err)
			}
		}
	})
}
