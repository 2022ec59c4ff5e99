package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"sync"
	"time"

	"github.com/ingot-metal/ingot/api"
	"golang.org/x/sys/unix"
)

const mib = 1 << 20

// eraser wipes targets.
type eraser struct {
	cmd      commander
	logf     func(string, ...any)
	progress func(string)
	// result is told of each disk how it ended; nil: nobody.
	result func(disk, how string, err error)
}

// Ways to erase, as a plan says them.
const (
	eraseQuick         = "quick"
	eraseSecure        = "secure"          // where the disk offers it, else full
	eraseSecureOrQuick = "secure-or-quick" // where the disk offers it, else quick
	eraseFull          = "full"
)

// erase wipes every disk of the plan, all at the same time. Nothing is written before all disks are verified. Each disk has its own
// result; one that fails does not keep the others from being erased, but the whole has failed then.
func (e eraser) erase(ctx context.Context, plan api.ErasePlan, present []Disk) error {
	switch plan.Mode {
	case eraseQuick, eraseSecure, eraseSecureOrQuick, eraseFull:
	default:
		return fmt.Errorf("refused: unknown way to erase %q", plan.Mode)
	}
	targets, err := verifyTargets(plan.Disks, present)
	if err != nil {
		return err
	}
	errs := make([]error, len(targets))
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Add(1)
		go func() {
			defer wg.Done()
			how, err := e.one(ctx, t, plan.Mode)
			if err == nil {
				e.logf("%s: erased (%s)", t.disk.Path, how)
			}
			if errs[i] = inStep("erase "+t.disk.Path, err); e.result != nil {
				e.result(t.disk.Name, how, errs[i])
			}
		}()
	}
	wg.Wait()
	return errors.Join(errs...)
}

// one erases a disk and says how that was done in the end.
func (e eraser) one(ctx context.Context, t target, mode string) (how string, err error) {
	e.progress(fmt.Sprintf("Erasing %s (%s, %d MiB, serial %q)", t.disk.Path, mode, t.disk.Size/mib, t.disk.Serial))
	if mode == eraseSecure || mode == eraseSecureOrQuick {
		before, err := sample(t)
		if err != nil {
			return "", err
		}
		how, err := e.secure(ctx, t)
		if err == nil {
			// what a drive says of itself is not believed: nothing of what was there may be left. The tables are zeroed after it, which
			// costs nothing and is verified as well.
			if err = before.gone(t); err == nil {
				return how, e.quick(ctx, t)
			}
			err = fmt.Errorf("after %s: %w", how, err)
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		instead := eraseFull
		if mode == eraseSecureOrQuick {
			instead = eraseQuick
		}
		e.progress(fmt.Sprintf("%s: no secure erase (%v): %s erase instead", t.disk.Path, err, instead))
		const note = " instead of secure erase"
		if instead == eraseFull {
			return "overwritten with zeros" + note, e.full(ctx, t)
		}
		return "quick" + note, e.quick(ctx, t)
	}
	if mode == eraseFull {
		return "overwritten with zeros", e.full(ctx, t)
	}
	return "quick", e.quick(ctx, t)
}

// samples are pieces of a disk's content before it is erased.
type samples map[int64][sha256.Size]byte

const (
	sampleSize  = 4096
	sampleCount = 512
)

// sample looks at places all over a disk and remembers what is not zero there: the digest, not the content.
func sample(t target) (samples, error) {
	f, err := t.open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := samples{}
	step := max(t.disk.Size/sampleCount/sampleSize, 1) * sampleSize
	b := make([]byte, sampleSize)
	for off := int64(0); off+sampleSize <= t.disk.Size; off += step {
		if _, err := f.ReadAt(b, off); err != nil {
			continue // a disk with bad places can still erase itself
		}
		if !bytes.Equal(b, zeros[:sampleSize]) {
			s[off] = sha256.Sum256(b)
		}
	}
	return s, nil
}

// gone tells whether nothing of the samples is there any more: what reads as zeros, as noise or not at all was erased.
func (s samples) gone(t target) error {
	f, err := t.open()
	if err != nil {
		return err
	}
	defer f.Close()
	if err := flushCache(f); err != nil {
		return err
	}
	b := make([]byte, sampleSize)
	for off, sum := range s {
		if _, err := f.ReadAt(b, off); err == nil && sha256.Sum256(b) == sum {
			return fmt.Errorf("what was at byte %d is still there", off)
		}
	}
	return nil
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
	if t.disk.Size%int64(max(t.disk.BlockSize, 512)) == 0 && setDirect(f, true) { // past the page cache, which other programs want
		defer setDirect(f, false)
	}
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
		if errors.Is(err, unix.EINVAL) && k == 0 { // direct I/O that the file system does not take
			setDirect(f, false)
			k, err = f.WriteAt(zeros[:n], s.Start+done)
		}
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

// secure lets the drive erase itself.
func (e eraser) secure(ctx context.Context, t target) (how string, err error) {
	switch t.disk.Type {
	case "nvme", "sata":
	default:
		return "", fmt.Errorf("%w: none is known for disks of type %s", errNoSecureErase, t.disk.Type)
	}
	f, err := t.open()
	if err != nil {
		return "", err
	}
	defer f.Close()
	tell := func(s string) { e.progress(fmt.Sprintf("Erasing %s: %s", t.disk.Path, s)) }
	if t.disk.Type == "nvme" {
		how, err = eraseNVMe(ctx, nvmeFile{f}, tell)
	} else {
		how, err = eraseATA(ctx, ataFile{f, t.disk.Path, e.cmd}, tell)
	}
	return how, err
}
