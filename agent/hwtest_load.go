package agent

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// loadTime is how long a test that could go on for ever does: most of the time that it has, so that it ends by itself.
func (t *testRun) loadTime() time.Duration {
	if t.limit <= 0 {
		return 5 * time.Minute
	}
	return t.limit * 9 / 10
}

// cpuTest keeps every processor busy with work whose results are known, and compares them: a processor that overheats computes wrongly
// or stops before it burns.
func cpuTest(ctx context.Context, t *testRun) error {
	d, n := t.loadTime(), runtime.NumCPU()
	t.logf("%d processors compute for %v", n, d.Round(time.Second))
	end := time.Now().Add(d)
	want := burn()
	var rounds, wrong atomic.Int64
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for time.Now().Before(end) && ctx.Err() == nil {
				if burn() != want {
					wrong.Add(1)
				}
				rounds.Add(1)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	t.logf("%d rounds, %d wrong", rounds.Load(), wrong.Load())
	t.results["rounds"], t.results["wrong"] = rounds.Load(), wrong.Load()
	if wrong.Load() > 0 {
		return fmt.Errorf("%d of %d computations gave another result than the first", wrong.Load(), rounds.Load())
	}
	return nil
}

// burn is one round of work: integers, hashes and floating point, some tens of milliseconds of it.
func burn() (sum [32]byte) {
	x, f := uint64(0x9e3779b97f4a7c15), 1.0
	var buf [4096]byte
	for i := range 4000 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		f = math.Sqrt(f*1.000001+float64(x&0xffff)) + math.Sin(f)
		binary.LittleEndian.PutUint64(buf[(i*8)%len(buf):], x+math.Float64bits(f))
		if i%16 == 0 {
			sum = sha256.Sum256(append(buf[:], sum[:]...))
		}
	}
	return sum
}

// memPatterns are written into all memory and read back: each bit as both, neighbours different, and each word its own address.
var memPatterns = []uint64{0, math.MaxUint64, 0x5555555555555555, 0xaaaaaaaaaaaaaaaa, 0x0123456789abcdef}

// memoryTest fills the free memory, but for what the system needs to live on, with patterns and looks whether it keeps them: once, or
// for as long as the test has.
func memoryTest(ctx context.Context, t *testRun, forAWhile bool) error {
	size, err := testableMemory(system{"/"})
	if err != nil {
		return err
	}
	return testMemory(ctx, t, size, forAWhile)
}

// testMemory tests size bytes.
func testMemory(ctx context.Context, t *testRun, size int64, forAWhile bool) error {
	end := time.Now().Add(t.loadTime())
	mem, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("%d MiB of memory: %w", size>>20, err)
	}
	defer unix.Munmap(mem)
	if err := unix.Mlock(mem); err != nil { // without, a part may be swapped out, and what is tested is the disk
		t.logf("the memory could not be locked: %v", err)
	}
	t.logf("testing %d MiB with %d processors", size>>20, runtime.NumCPU())
	passes, bad := 0, int64(0)
	for {
		for _, p := range append(memPatterns, 1) { // 1: each word its own number
			n, at, err := memoryPass(ctx, mem, p, p == 1, func() {})
			if err != nil && passes == 0 {
				return err
			}
			if err != nil {
				break
			}
			if bad += n; n > 0 {
				t.logf("pattern %016x: %d words came back wrong, the first at offset %#x", p, n, at)
			}
			if forAWhile && passes > 0 && !time.Now().Before(end) {
				break
			}
		}
		passes++
		if !forAWhile || bad > 0 || !time.Now().Before(end) || ctx.Err() != nil {
			break
		}
	}
	t.logf("%d passes, %d errors", passes, bad)
	t.results["tested_mib"], t.results["passes"], t.results["errors"] = size>>20, passes, bad
	if bad > 0 {
		return fmt.Errorf("%d words of memory did not keep what was written to them", bad)
	}
	return nil
}

// memoryPass writes a pattern everywhere and then reads everything, so that caches do not answer for the memory; written is called
// in between. It returns how many words were wrong, and where the first was.
func memoryPass(ctx context.Context, mem []byte, pattern uint64, counting bool, written func()) (bad int64, first int64, err error) {
	first = math.MaxInt64
	var mu sync.Mutex
	work := func(do func(part []byte, base int) (int64, int64)) error {
		n := runtime.NumCPU()
		step := (len(mem)/n + 4095) &^ 4095
		var wg sync.WaitGroup
		for from := 0; from < len(mem); from += step {
			wg.Go(func() {
				for at := from; at < min(from+step, len(mem)) && ctx.Err() == nil; at += 1 << 20 {
					n, where := do(mem[at:min(at+1<<20, from+step, len(mem))], at)
					if n > 0 {
						mu.Lock()
						bad, first = bad+n, min(first, where)
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		return ctx.Err()
	}
	value := func(at int) uint64 {
		if counting {
			return uint64(at) * 0x9e3779b97f4a7c15
		}
		return pattern
	}
	if err := work(func(part []byte, base int) (int64, int64) {
		for i := 0; i+8 <= len(part); i += 8 {
			binary.NativeEndian.PutUint64(part[i:], value(base+i))
		}
		return 0, 0
	}); err != nil {
		return 0, 0, err
	}
	written()
	err = work(func(part []byte, base int) (n, where int64) {
		for i := 0; i+8 <= len(part); i += 8 {
			if binary.NativeEndian.Uint64(part[i:]) != value(base+i) {
				if n++; n == 1 {
					where = int64(base + i)
				}
			}
		}
		return n, where
	})
	return bad, first, err
}

// testableMemory is what can be taken without the system's dying of it: three quarters of what is available.
func testableMemory(s system) (int64, error) {
	for _, l := range strings.Split(s.read("proc/meminfo"), "\n") {
		w := strings.Fields(l)
		if len(w) >= 2 && w[0] == "MemAvailable:" {
			kib, err := strconv.ParseInt(w[1], 10, 64)
			if err != nil {
				return 0, err
			}
			size := (kib << 10) / 4 * 3 &^ (1<<20 - 1)
			if size < 1<<20 {
				return 0, errors.New("no memory is free to be tested")
			}
			return size, nil
		}
	}
	return 0, errors.New("/proc/meminfo does not say how much memory is available")
}
