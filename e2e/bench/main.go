// Command bench measures what users of an installation feel, on the real binary with SQLite and, where TEST_POSTGRES names a server, with
// PostgreSQL: how fast it starts, what it needs idle, and at 10,000 machines the lists, the filters, tag definitions and allocations, each
// beside its bar. Its one judgement is PASS or MISS; run it on a machine that does nothing else before you believe a MISS.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

type bench struct {
	table
	bin                   string
	machines, allocations int
	clients, runs         int
	settle                time.Duration
}

func main() {
	var b bench
	flag.StringVar(&b.bin, "bin", "bin/ingot", "the program")
	flag.IntVar(&b.machines, "machines", 10000, "machines in the database")
	flag.IntVar(&b.clients, "clients", 16, "clients that allocate at once")
	flag.IntVar(&b.allocations, "allocations", 2000, "how many allocations to time for each set of constraints")
	flag.IntVar(&b.runs, "runs", 7, "how often lists are read")
	flag.DurationVar(&b.settle, "settle", 5*time.Second, "how long the server idles before its memory is read")
	engine := flag.String("engine", "", "sqlite or postgres; default: both, as far as TEST_POSTGRES is set")
	strict := flag.Bool("strict", false, "end with status 1 when a bar is missed")
	flag.Parse()
	ctx, base := context.Background(), os.Getenv("TEST_POSTGRES")
	run := func(name, base string) {
		if *engine != "" && *engine != name {
			return
		}
		b.engine = name
		if err := b.measure(ctx, base); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", name, err)
			os.Exit(1)
		}
	}
	run("sqlite", "")
	if base != "" {
		run("postgres", base)
	} else if *engine != "sqlite" {
		fmt.Println("TEST_POSTGRES is not set: PostgreSQL was not measured (scripts/postgres-test.sh COMMAND sets it)")
	}
	for _, name := range b.missed {
		fmt.Println("missed:", name)
	}
	if *strict && len(b.missed) > 0 {
		os.Exit(1)
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (b *bench) measure(ctx context.Context, base string) error {
	if 2*b.allocations > b.machines {
		return fmt.Errorf("%d allocations of %d machines", 2*b.allocations, b.machines)
	}
	dir, err := os.MkdirTemp("", "ingot-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	db, dsn := "", "sqlite:"+filepath.Join(dir, "ingot.db")
	if base != "" {
		var drop func() error
		if db, drop, err = schema(ctx, base); err != nil {
			return err
		}
		dsn = db
		defer func() {
			if err := drop(); err != nil {
				fmt.Fprintln(os.Stderr, "bench:", err)
			}
		}()
	}
	b.load()
	if err := b.empty(ctx, dir, db); err != nil {
		return err
	}
	begin := time.Now()
	firsts := []int{b.machines / 5, b.machines / 2}
	if err := fill(ctx, dsn, b.machines, firsts); err != nil {
		return fmt.Errorf("fill: %w", err)
	}
	if base != "" {
		if err := settled(ctx, base); err != nil {
			return err
		}
	}
	b.figure(fmt.Sprintf("(writing %d machines took", b.machines), "%.0f s)", time.Since(begin).Seconds())
	s, took, err := startServer(ctx, b.bin, dir, db)
	if err != nil {
		return err
	}
	defer s.stop()
	b.bar(took < time.Second, "1 s", fmt.Sprintf("start with %d machines", b.machines), "%.0f ms", ms(took))
	for _, step := range []struct {
		name string
		run  func(ctx context.Context, s *running) error
	}{
		{"list", func(ctx context.Context, s *running) error { return b.lists(ctx, s, firsts) }},
		{"one machine", b.one},
		{"filters", b.filters},
		{"tag definition", b.definition},
		{"allocate", b.allocates},
	} {
		if err := step.run(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	b.load()
	return s.stop()
}

// empty measures a server without machines.
func (b *bench) empty(ctx context.Context, dir, db string) error {
	s, first, err := startServer(ctx, b.bin, dir, db)
	if err != nil {
		return err
	}
	defer s.stop()
	if db == "" {
		b.bar(first < time.Second, "1 s", "start on an empty folder", "%.0f ms", ms(first))
	} else {
		b.figure("start on an empty database", "%.0f ms", ms(first))
	}
	time.Sleep(b.settle)
	rss, err := s.memory("VmRSS")
	if err != nil {
		return err
	}
	b.bar(rss < 100e6, "100 MB", "resident memory, idle all-in-one", "%.1f MB", float64(rss)/1e6)
	return s.stop()
}

// lists reads the whole list, and parts of it, and holds the memory that it took against its length.
func (b *bench) lists(ctx context.Context, s *running, firsts []int) error {
	var peaks []float64
	var full times
	var bytes int64
	if _, _, err := s.fetch(ctx, "GET", "machines/", nil, nil); err != nil { // fills the caches of the database, which have their bounds
		return err
	}
	for _, n := range append(slices.Clone(firsts), b.machines) {
		path := "machines/"
		if n < b.machines {
			path += fmt.Sprintf("?tags=first-%d", n)
		}
		if err := s.forget(); err != nil {
			return err
		}
		used, err := s.cpu()
		if err != nil {
			return err
		}
		var all times
		for range b.runs {
			took, size, err := s.fetch(ctx, "GET", path, nil, nil)
			if err != nil {
				return err
			}
			all, bytes = append(all, took), size
		}
		peak, err := s.memory("VmHWM")
		if err != nil {
			return err
		}
		now, err := s.cpu()
		if err != nil {
			return err
		}
		b.figure(fmt.Sprintf("list of %d machines", n), "%s, %.1f MB, server's processor %s each, its memory at most %.0f MB", all, float64(bytes)/1e6,
			short((now-used)/time.Duration(b.runs)), float64(peak)/1e6)
		peaks, full = append(peaks, float64(peak)), all
	}
	var count []struct {
		SystemID string `json:"system_id"`
	}
	if _, _, err := s.fetch(ctx, "GET", "machines/", nil, &count); err != nil {
		return err
	}
	if len(count) != b.machines {
		return fmt.Errorf("%d machines in the list instead of %d", len(count), b.machines)
	}
	b.bar(full.at(50) < 3*time.Second, "3 s", fmt.Sprintf("full list, %d machines", b.machines), "median %s", short(full.at(50)))
	grown := peaks[len(peaks)-1]/peaks[0] - 1
	b.bar(grown < 0.25, "constant: at most 25% more for five times as many", "memory of the server against the list's length", "%+.0f%% from %d to %d machines", 100*grown, firsts[0], b.machines)
	return nil
}

// one reads one machine after another.
func (b *bench) one(ctx context.Context, s *running) error {
	var all times
	for i := range 300 {
		took, _, err := s.fetch(ctx, "GET", "machines/"+machineID(i*31%b.machines)+"/", nil, nil)
		if err != nil {
			return err
		}
		all = append(all, took)
	}
	b.bar(all.at(50) < 5*time.Millisecond, "5 ms", "one machine", "%s, 99%% %s", all, short(all.at(99)))
	return nil
}

// filters reads short lists out of the long one.
func (b *bench) filters(ctx context.Context, s *running) error {
	rare := (b.machines-7-1)/rareEvery + 1
	last := b.machines - 1
	mac := fmt.Sprintf("02:00:00:%02x:%02x:%02x", last>>16&0xff, last>>8&0xff, last&0xff)
	for _, f := range []struct {
		filter url.Values
		want   int // -1: any number
	}{
		{url.Values{"hostname": {fmt.Sprintf("machine-%d", last)}}, 1},
		{url.Values{"mac_address": {mac}}, 1},
		{url.Values{"id": {machineID(1), machineID(77), machineID(last)}}, 3},
		{url.Values{"tags": {"rare"}}, rare},
		{url.Values{"tags": {"rare,virtual"}}, rare},
		{url.Values{"zone": {"east"}}, rare},
		{url.Values{"pool": {"lab"}}, rare},
		{url.Values{"agent_name": {"bench"}}, rare},
		{url.Values{"status": {"deployed"}}, 0},
		{url.Values{"not_status": {"ready"}}, 0},
		{url.Values{"zone": {"east"}, "mem": {"65536"}, "cpu_count": {"16"}}, -1},
		{url.Values{"pool": {"lab"}, "subnets": {"fleet"}, "power_state": {"off"}}, rare},
		{url.Values{"zone": {"east"}, "storage": {"root:100(ssd),data:300(ssd)"}}, -1},
		{url.Values{"zone": {"east"}, "interfaces": {"net:subnet=fleet,tag=uplink"}}, rare},
	} {
		var all times
		for range 2*b.runs + 1 {
			var list []struct {
				SystemID string `json:"system_id"`
			}
			took, _, err := s.fetch(ctx, "GET", "machines/?"+f.filter.Encode(), nil, &list)
			if err != nil {
				return err
			}
			if f.want >= 0 && len(list) != f.want {
				return fmt.Errorf("%s gives %d machines instead of %d", f.filter.Encode(), len(list), f.want)
			}
			all = append(all, took)
		}
		name, _ := url.QueryUnescape(f.filter.Encode())
		b.bar(all.at(50) < 100*time.Millisecond, "100 ms", "list by "+name, "%s", all)
	}
	return nil
}

// definition makes tags with a definition and waits until the last machine that it holds for has the tag.
func (b *bench) definition(ctx context.Context, s *running) error {
	used, err := s.cpu()
	if err != nil {
		return err
	}
	var all times
	last := (b.machines - 1) / 4 * 4
	for i := range 3 {
		name := fmt.Sprintf("gpu-%d", i)
		begin := time.Now()
		if _, _, err := s.fetch(ctx, "POST", "tags/", url.Values{"name": {name}, "definition": {`//node[@id="display"]/vendor[contains(., "NVIDIA")]`}}, nil); err != nil {
			return err
		}
		for done := false; !done; {
			var m struct {
				Tags []string `json:"tag_names"`
			}
			if _, _, err := s.fetch(ctx, "GET", "machines/"+machineID(last)+"/", nil, &m); err != nil {
				return err
			}
			if done = slices.Contains(m.Tags, name); !done {
				if time.Since(begin) > time.Minute {
					return errors.New("the tag is not there after a minute")
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
		all = append(all, time.Since(begin))
		var tagged []struct {
			SystemID string `json:"system_id"`
		}
		if _, _, err := s.fetch(ctx, "GET", "tags/"+name+"/?op=machines", nil, &tagged); err != nil {
			return err
		}
		if len(tagged) != (b.machines+3)/4 {
			return fmt.Errorf("%d machines have the tag instead of %d", len(tagged), (b.machines+3)/4)
		}
	}
	now, err := s.cpu()
	if err != nil {
		return err
	}
	b.bar(all.at(50) < 5*time.Second, "5 s", fmt.Sprintf("tag definition over %d lshw documents of %d KB", b.machines, len(lshw(0))/1000), "%s, server's processor %s each",
		all, short((now-used)/time.Duration(len(all))))
	return nil
}

// allocates has clients allocate at once, with few constraints and with five, and checks that no machine was handed out twice.
func (b *bench) allocates(ctx context.Context, s *running) error {
	seen := map[string]bool{}
	for _, c := range []struct {
		name string
		form url.Values
	}{
		{"five constraints", url.Values{"mem": {"16384"}, "cpu_count": {"8"}, "tags": {"virtual"}, "zone": {"default"}, "pool": {"default"}}},
		{"five with storage and interfaces", url.Values{"mem": {"16384"}, "tags": {"virtual"}, "zone": {"default"},
			"storage": {"root:100(ssd),data:300(ssd),log:10(hdd)"}, "interfaces": {"net:subnet=fleet,tag=uplink;other:vid=0,name=eth4"}}},
	} {
		if err := b.allocate(ctx, s, c.name, c.form, seen); err != nil {
			return err
		}
	}
	var mine []struct {
		SystemID string `json:"system_id"`
	}
	if _, _, err := s.fetch(ctx, "GET", "machines/?op=list_allocated", nil, &mine); err != nil {
		return err
	}
	for _, m := range mine {
		if !seen[m.SystemID] {
			return fmt.Errorf("%s is allocated and nobody got it", m.SystemID)
		}
	}
	b.bar(len(mine) == len(seen), "none twice", "machines handed out, and allocated in the end", "%d, %d", len(seen), len(mine))
	return nil
}

func (b *bench) allocate(ctx context.Context, s *running, name string, form url.Values, seen map[string]bool) error {
	var mu sync.Mutex // guards seen, all and failed
	var wg sync.WaitGroup
	var all times
	var failed error
	used, err := s.cpu()
	if err != nil {
		return err
	}
	begin := time.Now()
	for c := range b.clients {
		wg.Go(func() {
			for i := c; i < b.allocations; i += b.clients {
				var m struct {
					SystemID string `json:"system_id"`
				}
				took, _, err := s.fetch(ctx, "POST", "machines/?op=allocate", form, &m)
				mu.Lock()
				if err == nil && seen[m.SystemID] {
					err = fmt.Errorf("%s was handed out twice", m.SystemID)
				}
				seen[m.SystemID] = true
				all, failed = append(all, took), errors.Join(failed, err)
				stop := failed != nil
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	wg.Wait()
	if failed != nil {
		return failed
	}
	rate := float64(b.allocations) / time.Since(begin).Seconds()
	now, err := s.cpu()
	if err != nil {
		return err
	}
	b.bar(rate >= 300, "300 a second", fmt.Sprintf("allocate, %d clients, %s", b.clients, name), "%.0f a second, median %s, 99%% %s, server's processor %s each, none twice", rate, short(all.at(50)), short(all.at(99)), short((now-used)/time.Duration(b.allocations)))
	return nil
}
