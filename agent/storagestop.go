package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stopper takes away what uses disks: swap, mounts, and the devices made of them (LVM, RAID, bcache, other maps), from the top down.
// It writes nothing by itself, and stops no array or cache that also lies on a disk it was not given: stopping one writes to its members.
type stopper struct {
	sys  system
	cmd  commander
	logf func(string, ...any)
	// allowed are the kernel names of the disks that may be freed.
	allowed map[string]bool
	// for tests
	umount  func(at string) error
	swapoff func(dev string) error
	settle  time.Duration // how long a device may take to go
}

func newStopper(sys system, cmd commander, logf func(string, ...any), disks []Disk) stopper {
	st := stopper{sys: sys, cmd: cmd, logf: logf, allowed: map[string]bool{}, settle: 10 * time.Second,
		umount:  func(at string) error { return unix.Unmount(at, 0) },
		swapoff: swapoff}
	for _, d := range disks {
		st.allowed[d.Name] = true
	}
	return st
}

// stop frees the disks. Devices that appear meanwhile (udev assembles what it finds) are stopped as well.
func (st stopper) stop(ctx context.Context) error {
	for round := 0; round < 20; round++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		top := st.top()
		if err := st.release(top); err != nil {
			return err
		}
		var made []string // what is to be stopped, not the disks themselves
		for _, n := range top {
			if !st.onDisk(n) {
				made = append(made, n)
			}
		}
		if len(made) == 0 {
			sets, err := st.stopCaches(ctx, top)
			if err != nil {
				return err
			}
			if sets == 0 {
				return nil
			}
			continue
		}
		for _, n := range made {
			if err := st.remove(ctx, n); err != nil {
				return fmt.Errorf("stop %s: %w", n, err)
			}
		}
	}
	return errors.New("the disks' devices come back as fast as they are stopped")
}

// onDisk says whether a block device is one of the disks or a partition of one.
func (st stopper) onDisk(n string) bool { return st.allowed[n] || st.allowed[st.parent(n)] }

// parent is the device that a partition lies on; "" for whole devices.
func (st stopper) parent(n string) string {
	if !st.sys.exists("sys/class/block", n, "partition") {
		return ""
	}
	real, err := filepath.EvalSymlinks(st.sys.path("sys/class/block", n))
	if err != nil {
		return ""
	}
	return filepath.Base(filepath.Dir(real))
}

// partitions of a block device.
func (st stopper) partitions(n string) []string {
	var out []string
	for _, p := range st.sys.list("sys/class/block", n) {
		if st.sys.exists("sys/class/block", n, p, "partition") {
			out = append(out, p)
		}
	}
	return out
}

// over are the devices made directly of one, its partitions included.
func (st stopper) over(n string) []string {
	out := append(st.partitions(n), st.sys.list("sys/class/block", n, "holders")...)
	if to, err := os.Readlink(st.sys.path("sys/class/block", n, "bcache/dev")); err == nil && !slices.Contains(out, filepath.Base(to)) {
		out = append(out, filepath.Base(to))
	}
	return out
}

// top are the devices on the allowed disks that nothing else is made of; disks and partitions that are free are among them.
func (st stopper) top() []string {
	seen := map[string]bool{}
	var out []string
	var walk func(n string)
	walk = func(n string) {
		if seen[n] {
			return
		}
		seen[n] = true
		up := st.over(n)
		for _, u := range up {
			walk(u)
		}
		if len(up) == 0 || len(up) == len(st.partitions(n)) && !slices.ContainsFunc(up, func(p string) bool { return len(st.over(p)) > 0 }) {
			out = append(out, n)
		}
	}
	for _, n := range sortedKeys(st.allowed) {
		walk(n)
	}
	return out
}

func sortedKeys(m map[string]bool) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// disksUnder are the disks that a device is made of, all the way down.
func (st stopper) disksUnder(n string) []string {
	seen := map[string]bool{}
	var walk func(n string)
	walk = func(n string) {
		if p := st.parent(n); p != "" {
			walk(p)
			return
		}
		down := st.sys.list("sys/class/block", n, "slaves")
		if len(down) == 0 {
			seen[n] = true
		}
		for _, d := range down {
			walk(d)
		}
	}
	walk(n)
	return sortedKeys(seen)
}

// ours refuses to stop what also lies on other disks.
func (st stopper) ours(disks []string) error {
	for _, d := range disks {
		if !st.allowed[d] {
			return fmt.Errorf("refused: it also lies on %s, which the plan does not name; stop it by hand or name that disk", d)
		}
	}
	return nil
}

// release ends swapping to and mounts of devices and their partitions.
func (st stopper) release(names []string) error {
	want := map[string]string{} // device number → name
	for _, n := range names {
		for _, x := range append([]string{n}, st.partitions(n)...) {
			if dev := st.sys.read("sys/class/block", x, "dev"); dev != "" {
				want[dev] = x
			}
		}
	}
	for i, l := range strings.Split(st.sys.read("proc/swaps"), "\n") {
		f := strings.Fields(l)
		if i == 0 || len(f) == 0 {
			continue
		}
		name := filepath.Base(f[0])
		if real, err := filepath.EvalSymlinks(f[0]); err == nil {
			name = filepath.Base(real)
		}
		if dev := st.sys.read("sys/class/block", name, "dev"); want[dev] != "" && dev != "" {
			st.logf("%s is swap: switched off", name)
			if err := st.swapoff(f[0]); err != nil {
				return fmt.Errorf("swapoff %s: %w", f[0], err)
			}
		}
	}
	type mounted struct{ name, at string }
	var ms []mounted
	for _, l := range strings.Split(st.sys.read("proc/self/mountinfo"), "\n") {
		f := strings.Fields(l)
		if len(f) < 5 {
			continue
		}
		n := want[f[2]]
		for i := 6; i+2 < len(f) && n == ""; i++ { // btrfs has device numbers of its own
			if f[i] == "-" && strings.HasPrefix(f[i+2], "/dev/") {
				n = want[st.sys.read("sys/class/block", filepath.Base(f[i+2]), "dev")]
			}
		}
		if n != "" {
			ms = append(ms, mounted{n, strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(f[4])})
		}
	}
	for i := len(ms) - 1; i >= 0; i-- { // the innermost were mounted last
		m := ms[i]
		if m.at == "/" {
			return fmt.Errorf("refused: %s holds the running system", m.name)
		}
		st.logf("%s is mounted on %s: unmounted", m.name, m.at)
		if err := st.umount(m.at); err != nil {
			return fmt.Errorf("unmount %s from %s: %w", m.name, m.at, err)
		}
	}
	return nil
}

// remove stops one made device.
func (st stopper) remove(ctx context.Context, n string) error {
	if p := st.parent(n); p != "" { // a partition of an array goes with it
		n = p
	}
	b := "sys/class/block/" + n
	switch {
	case !st.sys.exists(b):
		return nil
	case strings.HasPrefix(n, "dm-"): // only the map goes: its disks are not written
		if err := st.cmd.run(ctx, "dmsetup", "remove", "--retry", st.sys.read(b, "dm/name")); err != nil {
			return err
		}
	case strings.HasPrefix(n, "md"):
		if err := st.ours(st.disksUnder(n)); err != nil {
			return err
		}
		if err := st.cmd.run(ctx, "mdadm", "--stop", "/dev/"+n); err != nil {
			return err
		}
	case strings.HasPrefix(n, "bcache"):
		if err := st.ours(st.disksUnder(n)); err != nil {
			return err
		}
		st.logf("%s: stopped", n)
		if err := st.sys.write("1", b, "bcache/stop"); err != nil {
			return err
		}
	default:
		return errors.New("it is a kind of device that the agent cannot stop")
	}
	return st.gone(ctx, b)
}

// stopCaches stops the bcache sets that devices hold, and backing devices that are registered without a bcache.
func (st stopper) stopCaches(ctx context.Context, names []string) (int, error) {
	n := 0
	for _, x := range names {
		for _, d := range append([]string{x}, st.partitions(x)...) {
			b := "sys/class/block/" + d
			if !st.sys.exists(b, "bcache") {
				continue
			}
			n++
			stop := []string{b, "bcache/stop"}
			if st.sys.exists(b, "bcache/set") {
				for _, l := range st.sys.list(b, "bcache/set") { // its backing devices
					if to, err := filepath.EvalSymlinks(st.sys.path(b, "bcache/set", l)); err == nil && strings.HasPrefix(l, "bdev") {
						if err := st.ours(st.disksUnder(filepath.Base(filepath.Dir(to)))); err != nil {
							return n, fmt.Errorf("stop the cache on %s: %w", d, err)
						}
					}
				}
				stop = []string{b, "bcache/set/stop"}
			}
			st.logf("the cache on %s: stopped", d)
			if err := st.sys.write("1", stop...); err != nil && !errors.Is(err, os.ErrNotExist) {
				return n, err
			}
			if err := st.gone(ctx, b+"/bcache"); err != nil {
				return n, fmt.Errorf("stop the cache on %s: %w", d, err)
			}
		}
	}
	return n, nil
}

func (st stopper) gone(ctx context.Context, p string) error {
	for end := time.Now().Add(st.settle); st.sys.exists(p); {
		if time.Now().After(end) {
			return errors.New("it does not go away")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// write puts a value into a file of the system.
func (s system) write(value string, p ...string) error {
	f, err := os.OpenFile(s.path(p...), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
