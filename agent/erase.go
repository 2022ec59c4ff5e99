package agent

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/ingot-metal/ingot/api"
)

const mib = 1 << 20

// eraser wipes targets.
type eraser struct {
	cmd      commander
	logf     func(string, ...any)
	progress func(string)
}

// erase wipes every disk of the plan, one after the other; the first failure ends it. Nothing is written before all disks are verified.
func (e eraser) erase(ctx context.Context, plan api.ErasePlan, present []Disk) error {
	switch plan.Mode {
	case "quick", "secure", "full":
	default:
		return fmt.Errorf("refused: unknown way to erase %q", plan.Mode)
	}
	targets, err := verifyTargets(plan.Disks, present)
	if err != nil {
		return err
	}
	for _, t := range targets {
		if err := e.one(ctx, t, plan.Mode); err != nil {
			return inStep("erase "+t.disk.Path, err)
		}
		e.logf("%s: erased (%s)", t.disk.Path, plan.Mode)
	}
	return nil
}

func (e eraser) one(ctx context.Context, t target, mode string) error {
	e.progress(fmt.Sprintf("Erasing %s (%s, %d MiB, serial %q)", t.disk.Path, mode, t.disk.Size/mib, t.disk.Serial))
	if mode == "secure" {
		err := e.secure(ctx, t)
		if err == nil {
			// the table may survive in a drive that lies; a quick erase after it costs nothing and is verified
			return e.quick(ctx, t)
		}
		e.logf("%s: secure erase is not possible (%v); writing zeros instead", t.disk.Path, err)
		mode = "full"
	}
	if mode == "full" {
		return e.full(ctx, t)
	}
	return e.quick(ctx, t)
}

// signatures are the places where a disk or partition of this size says what it holds: both ends; the superblock copies of ext2-4
// (1, 2 and 4 KiB blocks), XFS (allocation groups) and btrfs. Without them no tool finds the old file system.
func signatures(s Span) []Span {
	var out []Span
	add := func(off, n int64) {
		if off < 0 || off >= s.Size {
			return
		}
		out = append(out, Span{s.Start + off, min(n, s.Size-off)})
	}
	add(0, mib)
	add(s.Size-mib, mib)
	if s.Size <= 2*mib {
		return []Span{{s.Start, s.Size}}
	}
	// ext: group g starts at g × 8 × blocksize blocks; copies live in groups 1 and powers of 3, 5 and 7
	for _, bs := range []int64{1024, 2048, 4096, 65536} {
		group := 8 * bs * bs
		if bs < 4096 && s.Size > 64<<30 { // mke2fs uses small blocks only on small file systems
			continue
		}
		add(group, mib)
		for _, base := range []int64{3, 5, 7} {
			for g := base; g*group < s.Size; g *= base {
				add(g*group, mib)
			}
		}
	}
	for _, n := range []int64{4, 8, 16, 32} { // XFS: as many groups of equal size
		ag := s.Size / n / 4096 * 4096
		for i := int64(1); i < n; i++ {
			add(i*ag, 64<<10)
		}
	}
	add(64*mib, mib)
	add(256<<30, mib)
	return out
}

// mergeSpans sorts and joins overlapping ranges, so that nothing is written or checked twice.
func mergeSpans(in []Span) []Span {
	sort.Slice(in, func(i, j int) bool { return in[i].Start < in[j].Start })
	var out []Span
	for _, s := range in {
		if n := len(out); n > 0 && s.Start <= out[n-1].Start+out[n-1].Size {
			out[n-1].Size = max(out[n-1].Size, s.Start+s.Size-out[n-1].Start)
			continue
		}
		out = append(out, s)
	}
	return out
}

// quick zeroes everything that identifies what the disk and its partitions held, discards the rest where the device can, and reads
// back what it zeroed.
func (e eraser) quick(ctx context.Context, t target) error {
	f, err := t.open()
	if err != nil {
		return err
	}
	defer f.Close()
	whole := Span{0, t.disk.Size}
	parts := append(readPartitions(f, t.disk.Size, t.disk.BlockSize), t.disk.Parts...)
	spans := signatures(whole)
	for _, p := range parts {
		if p.Start >= 0 && p.Size > 0 && p.Start+p.Size <= t.disk.Size {
			spans = append(spans, signatures(p)...)
		}
	}
	spans = mergeSpans(spans)
	if t.disk.Discard {
		if err := discard(f, whole); err != nil {
			e.logf("%s: discard: %v", t.disk.Path, err)
		}
	}
	for _, s := range spans {
		if err := zero(ctx, f, s, nil); err != nil {
			return err
		}
	}
	if err := flushCache(f); err != nil {
		return err
	}
	for _, s := range spans {
		if err := checkZero(f, s); err != nil {
			return err
		}
	}
	return rereadPartitions(f)
}

// full writes zeros over the whole disk and reads samples back: both ends and every 64th MiB.
func (e eraser) full(ctx context.Context, t target) error {
	f, err := t.open()
	if err != nil {
		return err
	}
	defer f.Close()
	next := time.Now().Add(30 * time.Second)
	if err := zero(ctx, f, Span{0, t.disk.Size}, func(done int64) {
		if time.Now().After(next) {
			next = time.Now().Add(30 * time.Second)
			e.progress(fmt.Sprintf("Erasing %s: %d %%", t.disk.Path, done*100/t.disk.Size))
		}
	}); err != nil {
		return err
	}
	if err := flushCache(f); err != nil {
		return err
	}
	for off := int64(0); off < t.disk.Size; off += 64 * mib {
		if err := checkZero(f, Span{off, min(mib, t.disk.Size-off)}); err != nil {
			return err
		}
	}
	if err := checkZero(f, Span{max(0, t.disk.Size-mib), min(mib, t.disk.Size)}); err != nil {
		return err
	}
	return rereadPartitions(f)
}

var zeros = make([]byte, 4*mib)

func zero(ctx context.Context, f *os.File, s Span, progress func(done int64)) error {
	for done := int64(0); done < s.Size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(int64(len(zeros)), s.Size-done)
		k, err := f.WriteAt(zeros[:n], s.Start+done)
		if err != nil {
			return fmt.Errorf("write zeros at byte %d: %w", s.Start+done, err)
		}
		done += int64(k)
		if progress != nil {
			progress(done)
		}
	}
	return nil
}

func checkZero(f *os.File, s Span) error {
	buf := make([]byte, mib)
	for done := int64(0); done < s.Size; {
		n := min(int64(len(buf)), s.Size-done)
		if _, err := io.ReadFull(io.NewSectionReader(f, s.Start+done, n), buf[:n]); err != nil {
			return fmt.Errorf("read back at byte %d: %w", s.Start+done, err)
		}
		if !bytes.Equal(buf[:n], zeros[:n]) {
			return fmt.Errorf("byte range %d+%d does not read back as zeros", s.Start+done, n)
		}
		done += n
	}
	return nil
}

// secure lets the drive erase itself: NVMe format, ATA security erase.
func (e eraser) secure(ctx context.Context, t target) error {
	if !t.verified {
		return fmt.Errorf("refused: %s was not verified", t.disk.Path)
	}
	switch t.disk.Type {
	case "nvme":
		// 2 is cryptographic erase, 1 user data erase
		if err := e.cmd.run(ctx, "nvme", "format", t.disk.Path, "--ses=2", "--force"); err == nil {
			return nil
		}
		return e.cmd.run(ctx, "nvme", "format", t.disk.Path, "--ses=1", "--force")
	case "sata":
		var lines []string
		probe := commander{log: func(s string) { lines = append(lines, s) }}
		if err := probe.run(ctx, "hdparm", "-I", t.disk.Path); err != nil {
			return err
		}
		text := strings.Join(lines, "\n")
		switch {
		case !strings.Contains(text, "Security:"):
			return fmt.Errorf("the drive has no security feature")
		case !strings.Contains(text, "not frozen") && !strings.Contains(strings.Join(strings.Fields(text), " "), "not frozen"):
			return fmt.Errorf("the drive's security is frozen")
		}
		const pass = "ingot" // the drive forgets it when the erase is done; it protects nothing
		if err := e.cmd.run(ctx, "hdparm", "--user-master", "u", "--security-set-pass", pass, t.disk.Path); err != nil {
			return err
		}
		how := "--security-erase"
		if strings.Contains(text, "supported: enhanced erase") {
			how = "--security-erase-enhanced"
		}
		if err := e.cmd.run(ctx, "hdparm", "--user-master", "u", how, pass, t.disk.Path); err != nil {
			_ = e.cmd.run(ctx, "hdparm", "--user-master", "u", "--security-disable", pass, t.disk.Path)
			return err
		}
		return nil
	}
	return fmt.Errorf("no secure erase for disks of type %s", t.disk.Type)
}
