package agent

import (
	"archive/tar"
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/ingot-metal/ingot/api"
)

// wholeDiskForms are what may follow "root-dd" or "dd" in an image's type: MAAS's stored names, its upload names and zstd's.
var wholeDiskForms = map[string]bool{"": true, "tgz": true, "tar": true, "raw": true, "gz": true, "bz2": true, "xz": true, "zst": true, "tbz": true, "txz": true,
	"tzst": true, "tar.gz": true, "tar.bz2": true, "tar.xz": true, "tar.zst": true}

// wholeDisk tells whether an image type is the bytes of a disk rather than a root file system, and whether they are not packed at all.
func wholeDisk(typ string) (yes, raw bool) {
	form, ok := strings.CutPrefix(strings.TrimPrefix(typ, "root-"), "dd")
	if !ok {
		return false, false
	}
	form = strings.TrimLeft(form, ".-")
	return wholeDiskForms[form], form == "raw"
}

// imageDisk is the disk that a whole-disk image goes to: the plan's boot disk, else its only one.
func imageDisk(plan api.InstallPlan) (api.DiskID, error) {
	var all, boot []api.DiskID
	for _, it := range plan.Storage {
		if it.Type == api.StorageDisk && it.Disk != nil {
			if all = append(all, *it.Disk); it.Boot {
				boot = append(boot, *it.Disk)
			}
		}
	}
	switch {
	case len(boot) == 1:
		return boot[0], nil
	case len(boot) == 0 && len(all) == 1:
		return all[0], nil
	}
	return api.DiskID{}, fmt.Errorf("refused: a whole-disk image needs one disk to go to, and the plan names %d, %d of them to boot from", len(all), len(boot))
}

// checkImagePlan refuses what makes no sense before a disk is looked at.
func (in *installer) checkImagePlan() error {
	p := in.plan
	if p.Firmware != "bios" && p.Firmware != "uefi" {
		return fmt.Errorf("refused: the plan's firmware is %q", p.Firmware)
	}
	if p.Firmware != in.firmware {
		return fmt.Errorf("refused: the plan is for %s firmware, this machine booted by %s", p.Firmware, in.firmware)
	}
	return in.checkSystemPlan()
}

// checkSystemPlan looks at what is written into the new system.
func (in *installer) checkSystemPlan() error {
	p := in.plan
	if p.Hostname != "" && !hostName.MatchString(p.Hostname) {
		return fmt.Errorf("refused: host name %q", p.Hostname)
	}
	for _, f := range p.Seed {
		if c, err := cleanName(f.Path); err != nil || c == "." || strings.ContainsAny(f.Path, "\\") {
			return fmt.Errorf("refused: seed file %q", f.Path)
		}
	}
	if _, err := imageURL(in.configURL, p.Image); err != nil {
		return err
	}
	if p.OSystem == "windows" {
		return nil
	}
	_, err := renderNetwork(firstOf(p.NetworkStyle, "networkd"), p.Network)
	return err
}

// runWholeDisk writes an image of a disk and makes what is on it this machine's own.
func (in *installer) runWholeDisk(ctx context.Context, present []Disk, stage func(name, description string, f func() error)) {
	var t target
	stage(stagePartition, "Configuring storage", func() error {
		if err := in.checkImagePlan(); err != nil {
			return err
		}
		id, err := imageDisk(in.plan)
		if err != nil {
			return err
		}
		if present, err = in.free(ctx, []api.DiskID{id}, present); err != nil {
			return err
		}
		ts, err := verifyTargets([]api.DiskID{id}, present)
		if err != nil {
			return err
		}
		t = ts[0]
		return nil
	})
	stage(stageExtract, "Installing OS", func() error { return in.writeImage(ctx, t) })
	var s imageSystem
	stage(stageNetwork, "Finding the installed system", func() (err error) {
		s, err = in.openSystem(ctx, t)
		return err
	})
	stage(stageCurthooks, "Configuring OS", func() error { return in.configureImage(ctx, s) })
}

// writeImage streams the image onto the disk and reads it back.
func (in *installer) writeImage(ctx context.Context, t target) error {
	img := in.plan.Image
	u, err := imageURL(in.configURL, img)
	if err != nil {
		return err
	}
	d, err := newDownload(ctx, in.client, u, img, in.rep.Logf)
	if err != nil {
		return err
	}
	defer d.Close()
	in.rep.Logf("fetching %s (%s, %d MiB) for %s (serial %q)", u, img.Type, img.Size/mib, t.disk.Path, t.disk.Serial)
	stop := in.tellDownload(d, img.Size)
	defer stop()
	return writeWholeDisk(ctx, t, d, img.Type, in.firmware, in.rep.Logf)
}

// tellDownload reports how far a download is, every ten percent, until it is told to stop.
func (in *installer) tellDownload(d *download, size int64) (stop func()) {
	if size <= 0 {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for last := int64(0); ; {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			if pct := d.at.Load() * 100 / size; pct >= last+10 {
				last = pct / 10 * 10
				in.rep.Progress(stageExtract, fmt.Sprintf("Installing OS: %d %%", last))
				in.rep.Logf("image: %d %%", last)
			}
		}
	}()
	return func() { close(done); <-ended }
}

// writeWholeDisk writes an image that arrives on r: nothing before its first block has been looked at. What it writes counts only when it
// returns nil: every stage ended well, the digest was right, and the disk gave back what it was given.
func writeWholeDisk(ctx context.Context, t target, r io.Reader, typ, firmware string, logf func(string, ...any)) error {
	ok, raw := wholeDisk(typ)
	if !ok {
		return fmt.Errorf("image type %q is not a whole-disk image that this agent knows", typ)
	}
	f, err := t.open()
	if err != nil {
		return err
	}
	defer f.Close()
	s, err := openStream(ctx, r, raw)
	if err != nil {
		return err
	}
	defer s.close()
	image := io.Reader(s)
	var member *tarMember
	if !raw {
		br := bufio.NewReaderSize(s.Reader, 1<<16)
		s.Reader = br
		if image = br; looksLikeTar(br) {
			if member, err = openMember(br); err != nil {
				return err
			}
			image = member
		}
	}
	old := append(readPartitions(f, t.disk.Size, t.disk.BlockSize), t.disk.Parts...)
	w := newImageWriter(t, f, logf)
	start := time.Now()
	n, err := w.copy(ctx, image, func(head []byte, whole bool) error {
		table, err := inspectImage(head, whole, t.disk, firmware, DebianArch())
		if err != nil {
			return err
		}
		logf("the image has a %s table with %d partitions", table.kind, len(table.parts))
		if t.disk.Discard {
			if err := discard(f, Span{0, t.disk.Size}); err != nil {
				logf("%s: discard: %v", t.disk.Path, err)
			}
		}
		return nil
	})
	if err == nil && member != nil {
		err = member.finish()
	}
	if err == nil {
		err = s.finish()
	}
	if err != nil {
		return err
	}
	took := time.Since(start)
	logf("%d MiB of %d MiB hold data, written in %.1f s (%.0f MiB/s)", w.written/mib, n/mib, took.Seconds(), float64(n)/mib/max(took.Seconds(), 1e-3))
	start = time.Now()
	if err := w.verify(ctx); err != nil {
		return err
	}
	logf("read back and compared in %.1f s", time.Since(start).Seconds())
	if err := wipeBehind(ctx, f, t.disk.Size, n, old); err != nil {
		return err
	}
	return adoptTable(f, t, n)
}

// adoptTable fits the image's partition table to the disk and tells the kernel of it.
func adoptTable(f *os.File, t target, n int64) error {
	table, err := readTable(f, t.disk.Size, t.disk.BlockSize)
	if err != nil {
		return fmt.Errorf("the image's partition table: %w", err)
	}
	if e := table.end(); e > n {
		return fmt.Errorf("the image ended at byte %d, but its partitions go on to byte %d: it is cut off", n, e)
	}
	if table.kind == "gpt" {
		if err := moveBackupGPT(f, t.disk.Size, t.disk.BlockSize); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return rereadPartitions(f)
}

// wipeBehind removes what earlier systems left behind the image's end: the superblocks of LVM, RAID and file systems there would come
// back to life when a partition grows over them.
func wipeBehind(ctx context.Context, f *os.File, size, n int64, old []Span) error {
	spans := signatures(Span{0, size})
	for _, p := range old {
		if p.Start >= 0 && p.Size > 0 && p.Start+p.Size <= size {
			spans = append(spans, signatures(p)...)
		}
	}
	n = (n + 4095) / 4096 * 4096
	for _, s := range mergeSpans(spans) {
		if cut := n - s.Start; cut > 0 {
			s.Start, s.Size = s.Start+cut, s.Size-cut
		}
		if s.Size <= 0 {
			continue
		}
		if err := zero(ctx, f, s, nil); err != nil {
			return err
		}
	}
	return f.Sync()
}

// looksLikeTar tells by the checksum of the first header.
func looksLikeTar(br *bufio.Reader) bool {
	b, err := br.Peek(512)
	if err != nil || isZero(b) {
		return false
	}
	want, sum := int64(0), int64(0)
	for _, c := range b[148:156] {
		if c >= '0' && c <= '7' {
			want = want*8 + int64(c-'0')
		} else if c != ' ' && c != 0 {
			return false
		}
	}
	for i, c := range b {
		if i >= 148 && i < 156 {
			c = ' '
		}
		sum += int64(c)
	}
	return want == sum
}

// tarMember is the one file of an archive that holds a disk.
type tarMember struct {
	*tar.Reader
}

func openMember(r io.Reader) (*tarMember, error) {
	m := &tarMember{tar.NewReader(r)}
	h, err := m.next()
	if err == io.EOF {
		return nil, fmt.Errorf("%w: it holds no file", errArchive)
	}
	if err == nil && h.Size == 0 {
		err = fmt.Errorf("%w: its file is empty", errArchive)
	}
	return m, err
}

// next finds the next regular file.
func (m *tarMember) next() (*tar.Header, error) {
	for n := 0; n < 1000; n++ {
		h, err := m.Next()
		if err == io.EOF {
			return nil, err
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errArchive, err)
		}
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeGNUSparse:
			return h, nil
		case tar.TypeDir, tar.TypeXGlobalHeader, tar.TypeSymlink:
		default:
			return nil, fmt.Errorf("%w: entry type %q has no place beside a disk", errArchive, h.Typeflag)
		}
	}
	return nil, fmt.Errorf("%w: too many entries", errArchive)
}

func (m *tarMember) finish() error {
	h, err := m.next()
	if err == io.EOF {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("%w: it holds a second file, %q: one disk is one file", errArchive, clip(printable(h.Name), 100))
	}
	return err
}
