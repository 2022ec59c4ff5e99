package provisioner

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

const benchMachines = 10000

// BenchmarkAllocate measures allocations a second at ten thousand machines with 16 clients on SQLite that waits for the disk. It also
// holds the proof: no machine is given twice.
func BenchmarkAllocate(b *testing.B) {
	x := newSite(b, storagetest.New(b, storagetest.WithSync()))
	storagetest.Fleet(b, x.db, benchMachines)
	ctx := x.as(x.admin)
	var taken sync.Map
	var asked atomic.Int64
	b.ResetTimer()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for asked.Add(1) <= int64(b.N) {
				a, err := x.s.Allocate(ctx, AllocateRequest{Constraints: []Pair{{"mem", []string{"8192"}}, {"cpu_count", []string{"4"}}}})
				if kindOf(err) == Conflict { // all are given out
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

// TestListIsConstant holds the list to the same number of statements however many machines there are.
func TestListIsConstant(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		x := newSite(t, db)
		count := func() int64 {
			ctx, c := storage.WithCounter(x.as(x.admin))
			if _, err := x.s.Machines(ctx, []int64{storage.NodeMachine}, nil); err != nil {
				t.Fatal(err)
			}
			return c.N()
		}
		storagetest.Fleet(t, x.db, 1)
		one := count()
		x.write(func(tx *storage.Tx) error { return readyRows(tx, 200) })
		if many := count(); many != one || one > 30 {
			t.Fatalf("%d statements for one machine, %d for 201", one, many)
		}
	})
}
