package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"sort"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	writeBlock = 4 * mib   // what one write carries at most
	writeChunk = 64 << 10  // zeros of this size become a hole
	writers    = 4         // blocks in flight: a disk with a queue is faster with several
	holePiece  = 512 * mib // what one order to punch carries
	holeSample = 4 * mib   // how far apart holes are looked at when they are read back
)

// diskSum is the digest of a range that was written. The key is of this process: what is on the disk cannot have been made for it.
type diskSum struct {
	off int64
	n   int
	sum uint64
}

var sumSeed = maphash.MakeSeed()

// imageWriter puts a raw image onto a disk: data in large blocks, several at a time, past the page cache where the disk allows it.
// Long runs of zeros are not written: their place is cleared by the one order that promises zeros (see clear), and where the disk does
// not know it, with zeros. Nothing that was on the disk before shows through.
type imageWriter struct {
	f      *os.File
	size   int64 // of the disk
	sector int
	direct bool
	logf   func(string, ...any)

	mu      sync.Mutex
	sums    []diskSum
	holes   []Span
	written int64 // bytes of data
	err     error
}

// errTooLarge is an image that does not fit.
var errTooLarge = errors.New("the image is larger than the disk")

// alignedBuffer is memory that direct I/O takes.
func alignedBuffer(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
}

// setDirect switches direct I/O of an open file; it says whether it is on.
func setDirect(f *os.File, on bool) bool {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return false
	}
	if on {
		flags |= unix.O_DIRECT
	} else {
		flags &^= unix.O_DIRECT
	}
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETFL, flags)
	return err == nil && on
}

func newImageWriter(t target, f *os.File, logf func(string, ...any)) *imageWriter {
	w := &imageWriter{f: f, size: t.disk.Size, sector: max(t.disk.BlockSize, 512), logf: logf}
	w.direct = t.disk.Size%int64(w.sector) == 0 && setDirect(f, true)
	return w
}

type writeJob struct {
	off  int64
	buf  []byte                        // whole block
	n    int                           // how much of it is image
	zero [writeBlock / writeChunk]bool // chunks that are zero, and not in buf
}

// feeder cuts a stream into blocks. What comes by Write in whole chunks of zeros is not even copied.
type feeder struct {
	w       *imageWriter
	ctx     context.Context
	inspect func(head []byte, whole bool) error
	free    <-chan []byte
	jobs    chan<- writeJob
	cur     writeJob // being filled; buf nil: none
	at      int64    // received
}

// space makes sure that there is a block to fill, and gives its rest.
func (f *feeder) space() ([]byte, error) {
	if f.cur.buf == nil {
		if err := errors.Join(f.ctx.Err(), f.w.failed()); err != nil {
			return nil, err
		}
		f.cur = writeJob{off: f.at, buf: <-f.free}
	}
	return f.cur.buf[f.cur.n:], nil
}

// took notes that n bytes came, and passes on a block that is full.
func (f *feeder) took(n int) error {
	f.cur.n += n
	if f.at += int64(n); f.at > f.w.size {
		return fmt.Errorf("%w: it goes on after byte %d of %d", errTooLarge, f.w.size, f.w.size)
	}
	if f.cur.n == len(f.cur.buf) {
		return f.pass(false)
	}
	return nil
}

func (f *feeder) pass(last bool) error {
	if f.cur.off == 0 {
		if err := f.inspect(f.cur.buf[:f.cur.n], last); err != nil {
			return err
		}
	}
	n := f.cur.n
	clear(f.cur.buf[n:min(len(f.cur.buf), (n+f.w.sector-1)/f.w.sector*f.w.sector)]) // a last sector that the image fills in part
	f.jobs <- f.cur
	f.cur = writeJob{}
	return nil
}

// Write takes what a decoder has at hand.
func (f *feeder) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		b, err := f.space()
		if err != nil {
			return done, err
		}
		rest := p[done:]
		chunk := f.cur.n / writeChunk
		n := min(len(rest), (chunk+1)*writeChunk-f.cur.n)
		if n == writeChunk && f.cur.off > 0 && isZero(rest[:n]) { // the first block is shown to inspect as it is
			f.cur.zero[chunk] = true
		} else {
			copy(b, rest[:n])
		}
		if err := f.took(n); err != nil {
			return done, err
		}
		done += n
	}
	return len(p), nil
}

// ReadFrom reads straight into the blocks.
func (f *feeder) ReadFrom(r io.Reader) (total int64, err error) {
	for {
		b, err := f.space()
		if err != nil {
			return total, err
		}
		n, err := r.Read(b)
		if n > 0 {
			total += int64(n)
			if terr := f.took(n); terr != nil {
				return total, terr
			}
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// end passes on the last block.
func (f *feeder) end() error {
	if f.at == 0 {
		return errors.New("the image is empty")
	}
	if f.cur.n > 0 {
		return f.pass(true)
	}
	return nil
}

// copy writes all of r. inspect sees the image's first block before anything is written and may refuse it. It returns the image's length.
func (w *imageWriter) copy(ctx context.Context, r io.Reader, inspect func(head []byte, whole bool) error) (n int64, err error) {
	defer func() {
		if w.direct {
			setDirect(w.f, false)
		}
	}()
	free := make(chan []byte, writers+1)
	jobs := make(chan writeJob)
	var bufs [][]byte
	for range cap(free) {
		b, err := alignedBuffer(writeBlock)
		if err != nil {
			return 0, err
		}
		bufs = append(bufs, b)
		free <- b
	}
	var wg sync.WaitGroup
	for range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for j := range jobs {
				if err := w.block(j); err != nil {
					w.fail(err)
				}
				free <- j.buf
			}
		}()
	}
	defer func() {
		for _, b := range bufs {
			_ = unix.Munmap(b)
		}
	}()
	f := &feeder{w: w, ctx: ctx, inspect: inspect, free: free, jobs: jobs}
	if _, err = io.Copy(f, r); err == nil { // by the reader's WriteTo where it has one
		err = f.end()
	}
	n = f.at
	close(jobs)
	wg.Wait()
	if err == nil {
		err = w.failed()
	}
	if err == nil {
		err = w.clearHoles(ctx)
	}
	if err == nil {
		err = w.f.Sync()
	}
	return n, err
}

func (w *imageWriter) fail(err error) {
	w.mu.Lock()
	if w.err == nil {
		w.err = err
	}
	w.mu.Unlock()
}

func (w *imageWriter) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// block writes the runs of one block that are not zero.
func (w *imageWriter) block(j writeJob) error {
	n := (j.n + w.sector - 1) / w.sector * w.sector
	if j.off+int64(n) > w.size {
		return fmt.Errorf("%w by less than a sector", errTooLarge)
	}
	var holes []Span
	var sums []diskSum
	empty := func(at int) bool { return j.zero[at/writeChunk] || isZero(j.buf[at:min(at+writeChunk, n)]) }
	for at := 0; at < n; {
		zero := empty(at)
		end := min(at+writeChunk, n)
		for end < n && empty(end) == zero {
			end = min(end+writeChunk, n)
		}
		if zero {
			holes = append(holes, Span{j.off + int64(at), int64(end - at)})
		} else {
			if err := w.writeAt(j.buf[at:end], j.off+int64(at)); err != nil {
				return err
			}
			sums = append(sums, diskSum{j.off + int64(at), end - at, maphash.Bytes(sumSeed, j.buf[at:end])})
		}
		at = end
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holes = append(w.holes, holes...)
	w.sums = append(w.sums, sums...)
	for _, s := range sums {
		w.written += int64(s.n)
	}
	return nil
}

func isZero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }

func (w *imageWriter) writeAt(b []byte, off int64) error {
	if _, err := w.f.WriteAt(b, off); err != nil {
		if w.direct && errors.Is(err, unix.EINVAL) { // a file system that takes the flag, but not the size
			setDirect(w.f, false)
			_, err = w.f.WriteAt(b, off)
		}
		if err != nil {
			return fmt.Errorf("write at byte %d: %w", off, err)
		}
	}
	return nil
}

// clearHoles makes what the image has as zeros zero on the disk.
func (w *imageWriter) clearHoles(ctx context.Context) error {
	w.holes = mergeSpans(w.holes)
	punch := true
	for _, h := range w.holes {
		for done := int64(0); done < h.Size; {
			if err := ctx.Err(); err != nil {
				return err
			}
			p := Span{h.Start + done, min(holePiece, h.Size-done)}
			if punch {
				if err := punchZeros(w.f, p); err != nil {
					w.logf("the disk does not clear ranges by itself (%v): zeros are written", err)
					punch = false
				}
			}
			if !punch {
				if err := zero(ctx, w.f, p, nil); err != nil {
					return err
				}
			}
			done += p.Size
		}
	}
	return nil
}

// punchZeros gives a range back to the device, which reads as zeros from then on. Unlike a discard, whose outcome is the device's own
// affair, the kernel answers "not supported" where zeros are not promised.
func punchZeros(f *os.File, s Span) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, s.Start, s.Size)
}

// verify reads everything that was written back from the device and compares, and looks into the holes.
func (w *imageWriter) verify(ctx context.Context) error {
	if !w.direct {
		if err := flushCache(w.f); err != nil {
			return err
		}
		_ = unix.Fadvise(int(w.f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	direct := w.direct && setDirect(w.f, true)
	if direct {
		defer setDirect(w.f, false)
	}
	type look struct {
		diskSum
		zero bool
	}
	var all []look
	for _, s := range w.sums {
		all = append(all, look{s, false})
	}
	const sample = writeChunk // holes begin on its borders, and so do samples
	for _, h := range w.holes {
		for at := int64(0); at < h.Size; at += holeSample {
			all = append(all, look{diskSum{h.Start + at, int(min(sample, h.Size-at)), 0}, true})
		}
		if tail := h.Size - h.Size%sample; h.Size > sample {
			if tail == h.Size {
				tail -= sample
			}
			all = append(all, look{diskSum{h.Start + tail, int(h.Size - tail), 0}, true})
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].off < all[j].off })
	next := make(chan look)
	var wg sync.WaitGroup
	for range writers {
		buf, err := alignedBuffer(writeBlock)
		if err != nil {
			return err
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer func() { _ = unix.Munmap(buf) }()
			for l := range next {
				b := buf[:l.n]
				if _, err := io.ReadFull(io.NewSectionReader(w.f, l.off, int64(l.n)), b); err != nil {
					w.fail(fmt.Errorf("read back at byte %d: %w", l.off, err))
				} else if l.zero && !isZero(b) || !l.zero && maphash.Bytes(sumSeed, b) != l.sum {
					w.fail(fmt.Errorf("what was written at byte %d+%d does not read back: the disk is faulty", l.off, l.n))
				}
			}
		}()
	}
	for _, l := range all {
		if ctx.Err() != nil || w.failed() != nil {
			break
		}
		next <- l
	}
	close(next)
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	return w.failed()
}
