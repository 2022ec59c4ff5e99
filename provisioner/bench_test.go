package provisioner

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

const benchMachines = 10000

// BenchmarkAllocate measures allocations a second at ten thousand machines with five interfaces and six disks each, with 16 clients, on
// a store that waits for the disk. It also holds the proof: no machine is given twice.
func BenchmarkAllocate(b *testing.B) {
	x := newSite(b, storagetest.New(b, storagetest.WithSync()))
	storagetest.FleetOf(b, x.db, benchMachines, 5, 6)
	for name, constraints := range map[string][]Pair{
		"two constraints": {{"mem", []string{"8192"}}, {"cpu_count", []string{"4"}}},
		"five constraints": {{"mem", []string{"8192"}}, {"cpu_count", []string{"4"}}, {"tags", []string{"virtual"}}, {"zone", []string{"default"}},
			{"subnets", []string{"fleet"}}},
		"five with parts": {{"mem", []string{"8192"}}, {"cpu_count", []string{"4"}}, {"tags", []string{"virtual"}},
			{"storage", []string{"root:100(ssd),data:300(ssd),log:10(hdd)"}}, {"interfaces", []string{"net:subnet=fleet,tag=uplink;other:vid=0,name=eth4"}}},
	} {
		b.Run(name, func(b *testing.B) { benchAllocate(b, x, constraints) })
	}
}

func benchAllocate(b *testing.B, x *site, constraints []Pair) {
	x.write(func(tx *storage.Tx) error { // all are free again
		if _, err := tx.Exec(`update nodes set status = 4, owner_id = null`); err != nil || !tx.Postgres() {
			return err
		}
		_, err := tx.Exec(`analyze`) // as PostgreSQL does by itself, some time later
		return err
	})
	ctx := x.as(x.admin)
	var taken sync.Map
	var asked atomic.Int64
	b.ResetTimer()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for asked.Add(1) <= int64(b.N) {
				a, err := x.s.Allocate(ctx, AllocateRequest{Constraints: constraints})
				if kindOf(err) == Conflict { // all are given out
					b.Error(err)
					return
				}
				if err != nil {
					b.Error(err)
					return
				}
				if _, twice := taken.LoadOrStore(a.Machine.Node.SystemID, true); twice {
					b.Errorf("%s was given twice", a.Machine.Node.SystemID)
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "allocations/s")
}

// BenchmarkRefuse measures an allocate that no machine meets: the search through all of them, and its explanation.
func BenchmarkRefuse(b *testing.B) {
	x := newSite(b, storagetest.New(b))
	storagetest.FleetOf(b, x.db, benchMachines, 5, 6)
	for name, req := range map[string]AllocateRequest{
		"by the query":       {Constraints: []Pair{{"mem", []string{"8192"}}, {"storage", []string{"root:0,a:5000"}}}},
		"by looking at each": {Constraints: []Pair{{"mem", []string{"8192"}}, {"storage", []string{"root:0,1(hdd),1(hdd),1(hdd),1(hdd)"}}}},
		"explained": {Explain: true, Constraints: []Pair{{"mem", []string{"8192"}}, {"interfaces", []string{"a:name=eth9"}},
			{"storage", []string{"root:0,1(hdd),1(hdd),1(hdd),1(hdd)"}}}},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := x.s.Allocate(x.as(x.admin), req); kindOf(err) != Conflict {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkList measures loading ten thousand machines with all that the API shows.
func BenchmarkList(b *testing.B) {
	x := newSite(b, storagetest.New(b))
	storagetest.Fleet(b, x.db, benchMachines)
	ctx := x.as(x.admin)
	for b.Loop() {
		m, err := x.s.Machines(ctx, []int64{storage.NodeMachine}, nil)
		if err != nil || len(m) != benchMachines {
			b.Fatal(len(m), err)
		}
	}
}

// TestListIsConstant holds the list to the same number of statements however many machines there are, filtered by their parts or not.
func TestListIsConstant(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		x := newSite(t, db)
		count := func(filters ...Pair) int64 {
			ctx, c := storage.WithCounter(x.as(x.admin))
			if _, err := x.s.Machines(ctx, []int64{storage.NodeMachine}, filters); err != nil {
				t.Fatal(err)
			}
			return c.N()
		}
		parts := []Pair{{"storage", []string{"0"}}, {"interfaces", []string{"a:subnet=fleet"}}, {"subnets", []string{"interface:eth0"}}}
		storagetest.Fleet(t, x.db, 1)
		one, filtered := count(), count(parts...)
		x.write(func(tx *storage.Tx) error { return readyRows(tx, 200) })
		if many := count(); many != one || one > 30 {
			t.Fatalf("%d statements for one machine, %d for 201", one, many)
		}
		if many := count(parts...); many != filtered || filtered > 60 {
			t.Fatalf("filtered: %d statements for one machine, %d for 201", filtered, many)
		}
	})
}
