package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ingot-metal/ingot/api"
	"golang.org/x/sys/unix"
)

// Stage names, as MAAS's own installer reports them.
const (
	stageInstall   = "cmd-install"
	stagePartition = "cmd-install/stage-partitioning"
	stageExtract   = "cmd-install/stage-extract"
	stageNetwork   = "cmd-install/stage-network"
	stageCurthooks = "cmd-install/stage-curthooks"
	stageLate      = "cmd-install/stage-late"
)

// installer carries out one InstallPlan.
type installer struct {
	plan      api.InstallPlan
	configURL string
	client    *Client
	rep       *Reporter
	cmd       commander
	firmware  string // what this boot was: must be what the plan was made for
	mountAt   string // where the new system is assembled
	devDir    string // /dev; "" in tests
	list      func() ([]Disk, error)

	storage  *storagePlan
	targetOf map[string]target      // disks by their ID in the plan
	devices  map[string]device      // what was made, by ID
	tables   map[string][]tablePart // partition tables as written
	ids      map[string]string      // of tables and backing devices
	mounts   []string               // what is mounted, innermost last
	root     *os.Root
}

func (in *installer) log(s string) { in.rep.Line(s) }

// run performs all stages up to the point where the disk would boot. Whatever happens, nothing stays mounted, and no array or volume
// group stays active.
func (in *installer) run(ctx context.Context, present []Disk) (err error) {
	stage := func(name, description string, f func() error) {
		if err != nil {
			return
		}
		in.rep.Start(name, description)
		err = inStep(strings.TrimPrefix(name, stageInstall+"/"), f())
		in.rep.Finish(name, description, err)
	}
	defer func() {
		uerr := in.unmountAll()
		if uerr == nil && len(in.devices) > 0 {
			dctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			uerr = in.deactivate(dctx)
			cancel()
		}
		if uerr != nil && err == nil {
			err = inStep("unmount", uerr)
		}
	}()
	whole, _ := wholeDisk(in.plan.Image.Type)
	switch {
	case in.plan.Memory:
		in.runMemory(ctx, stage)
		return err
	case whole:
		in.runWholeDisk(ctx, present, stage)
		return err
	}
	stage(stagePartition, "Configuring storage", func() error { return in.partitioning(ctx, present) })
	stage(stageExtract, "Installing OS", func() error { return in.extract(ctx) })
	stage(stageNetwork, "Configuring network", func() error { return in.network() })
	stage(stageCurthooks, "Configuring OS", func() error { return in.configure(ctx) })
	return err
}

var hostName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,252}[a-zA-Z0-9])?$`)

// checkPlan refuses plans that make no sense before a disk is looked at.
func (in *installer) checkPlan() error {
	if err := in.checkImagePlan(); err != nil {
		return err
	}
	p, err := checkStorage(in.plan.Storage)
	if err != nil {
		return err
	}
	if n := in.plan.SwapSize; n != nil && *n < 0 {
		return fmt.Errorf("refused: a swap file of %d bytes", *n)
	}
	if o := in.plan.KernelOpts; strings.ContainsAny(o, "\r\n\x00") {
		return fmt.Errorf("refused: kernel options %q", o)
	}
	if k := in.plan.KernelPackage; k != "" && !packageName.MatchString(k) {
		return fmt.Errorf("refused: kernel package %q", k)
	}
	if u := in.plan.Proxy; u != "" {
		if _, err := checkURL(u); err != nil {
			return fmt.Errorf("refused: proxy: %w", err)
		}
	}
	in.storage = p
	return p.checkBoot(in.plan.Firmware)
}

var packageName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9+._:~-]*$`)

// partitioning makes the plan's storage on its disks and mounts it. Nothing is written before all of it was checked.
func (in *installer) partitioning(ctx context.Context, present []Disk) error {
	if err := in.checkPlan(); err != nil {
		return err
	}
	var ids []api.DiskID
	disks := in.storage.disks()
	for _, d := range disks {
		ids = append(ids, *d.Disk)
	}
	present, err := in.free(ctx, ids, present)
	if err != nil {
		return err
	}
	ts, err := verifyTargets(ids, present)
	if err != nil {
		return err
	}
	in.targetOf = map[string]target{}
	for i, d := range disks {
		in.targetOf[d.ID] = ts[i]
	}
	if err := in.storage.layouts(in.targetOf); err != nil {
		return err
	}
	m := &storageMaker{plan: in.storage, targets: in.targetOf, home: firstOf(in.plan.Hostname, "any"), mkfs: mkfsFor(in.plan), logf: in.rep.Logf,
		host: kernelHost{cmd: in.cmd, sys: system{"/"}, logf: in.rep.Logf, again: func(ctx context.Context) error { _, err := in.free(ctx, ids, present); return err }}}
	defer func() { in.devices, in.tables, in.ids = m.devices, m.tables, m.ids }()
	if err := m.run(ctx); err != nil {
		return err
	}
	in.devices, in.tables, in.ids = m.devices, m.tables, m.ids
	return in.mount()
}

// free takes away what uses the disks that the plan names, and returns what is present after that. A disk that the plan does not find
// exactly once is left alone here and refused later.
func (in *installer) free(ctx context.Context, ids []api.DiskID, present []Disk) ([]Disk, error) {
	return freeDisks(ctx, in.cmd, in.rep.Logf, in.list, ids, present)
}

// idleDisks are disks as they would be without what uses them.
func idleDisks(present []Disk) []Disk {
	idle := slices.Clone(present)
	for i := range idle {
		idle[i].Busy = ""
	}
	return idle
}

// freeDisks takes away what uses the disks with these identities and lists all disks anew. It is for a plan that may write them whole: systems
// assemble what they find (a distribution's udev rules start the volume groups and arrays of the system that was installed before).
func freeDisks(ctx context.Context, cmd commander, logf func(string, ...any), list func() ([]Disk, error), ids []api.DiskID, present []Disk) ([]Disk, error) {
	idle := idleDisks(present)
	var disks []Disk
	for _, id := range ids {
		d, err := matchDisk(id, idle)
		if err != nil {
			return present, nil // verifyTargets says it
		}
		if fi, err := os.Stat(d.Path); err == nil && fi.Mode()&os.ModeDevice != 0 {
			disks = append(disks, d)
		}
	}
	if len(disks) == 0 {
		return present, nil
	}
	if err := newStopper(system{"/"}, cmd, logf, disks).stop(ctx); err != nil {
		return nil, fmt.Errorf("take the disks out of use: %w", err)
	}
	return list()
}

// deactivate stops the arrays, volume groups and caches that the installation made, so that they are whole when the machine restarts.
func (in *installer) deactivate(ctx context.Context) error {
	var disks []Disk
	for _, t := range in.targetOf {
		if fi, err := os.Stat(t.disk.Path); err == nil && fi.Mode()&os.ModeDevice != 0 {
			disks = append(disks, t.disk)
		}
	}
	return newStopper(system{"/"}, in.cmd, in.rep.Logf, disks).stop(ctx)
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// waitPartition waits for a partition of a target.
func waitPartition(ctx context.Context, t target, dev string, p tablePart) error {
	return waitNode(ctx, t.open, dev, p)
}

// waitNode waits for a partition's device node and checks that it is the one just written, by place and size. open opens the device
// that it lies on.
func waitNode(ctx context.Context, open func() (*os.File, error), dev string, p tablePart) error {
	s := system{"/"}
	name := filepath.Base(dev)
	for i := 0; i < 100; i++ {
		if i == 20 {
			f, err := open()
			if err != nil {
				return err
			}
			err = addPartition(f, p)
			f.Close()
			if err != nil {
				return fmt.Errorf("tell the kernel of %s: %w", dev, err)
			}
		}
		if _, err := os.Stat(dev); err == nil && s.exists("sys/class/block", name, "partition") {
			start, size := s.readInt("sys/class/block", name, "start")*512, s.readInt("sys/class/block", name, "size")*512
			if start != p.start || size != p.end-p.start {
				return fmt.Errorf("%s is at %d+%d, expected %d+%d: not the partition that was written", dev, start, size, p.start, p.end-p.start)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s did not appear", dev)
}

func (in *installer) unmountAll() error {
	if in.root != nil {
		in.root.Close()
		in.root = nil
	}
	unix.Sync()
	var errs []error
	for i := len(in.mounts) - 1; i >= 0; i-- {
		var err error
		for try := 0; try < 50; try++ {
			if err = unix.Unmount(in.mounts[i], 0); err != unix.EBUSY {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if err == unix.EBUSY {
			err = unix.Unmount(in.mounts[i], unix.MNT_DETACH)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", in.mounts[i], err))
		}
	}
	in.mounts = nil
	return errors.Join(errs...)
}

// write puts one file into the new system, never through a link that leads out of it.
func (in *installer) write(f outFile) error {
	p := strings.TrimPrefix(path.Clean(f.path), "/")
	if err := in.root.MkdirAll(path.Dir(p), 0o755); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	if err := in.root.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	h, err := in.root.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	mode := f.mode & 0o7777
	if mode == 0 {
		mode = 0o644
	}
	_, err = h.WriteString(f.content)
	if err == nil {
		err = h.Chmod(os.FileMode(mode & 0o777))
	}
	if cerr := h.Close(); err == nil {
		err = cerr
	}
	return err
}

func (in *installer) has(p string) bool {
	_, err := in.root.Stat(p)
	return err == nil
}

// configure makes the unpacked image this machine's own system and makes it bootable.
func (in *installer) configure(ctx context.Context) error {
	fstab := in.storage.fstab(len(in.storage.espCopies()) > 0, in.plan.SwapSize != nil && *in.plan.SwapSize > 0)
	files := []outFile{{"/etc/fstab", fstab, 0o644}}
	if h := in.plan.Hostname; h != "" {
		files = append(files, outFile{"/etc/hostname", h + "\n", 0o644})
		if hosts, ok := in.hosts(h); ok {
			files = append(files, hosts)
		}
	}
	if fi, err := in.root.Lstat("etc/machine-id"); err == nil && fi.Mode().IsRegular() {
		files = append(files, outFile{"/etc/machine-id", "", 0o444}) // every machine gets its own at its first boot
	}
	for _, s := range in.plan.Seed {
		files = append(files, outFile{s.Path, s.Content, s.Mode})
	}
	for _, f := range files {
		if err := in.write(f); err != nil {
			return err
		}
	}
	return in.makeBootable(ctx)
}

// makeBootable gives the new system what its storage and its firmware need: packages, configuration, initramfs, boot loader.
func (in *installer) makeBootable(ctx context.Context) error {
	f := in.family()
	if err := in.storageConfig(ctx, f); err != nil {
		return err
	}
	if err := in.enterChroot(); err != nil {
		return err
	}
	if err := in.byIDLinks(); err != nil {
		return err
	}
	why := in.needsInitramfs()
	if pkgs := in.missing(f); len(pkgs) > 0 {
		why = "packages were installed"
		if err := in.installPackages(ctx, f, pkgs); err != nil {
			return err
		}
		// a package may have brought its own
		if err := in.storageConfig(ctx, f); err != nil {
			return err
		}
	}
	if why != "" {
		in.rep.Progress(stageCurthooks, "Building the initramfs")
		in.rep.Logf("the initramfs is built anew: %s", why)
		if err := in.rebuild(ctx); err != nil {
			return err
		}
	}
	if err := in.bootloader(ctx, f); err != nil {
		return err
	}
	return in.relabel()
}

// hosts adds the machine's own name to the image's /etc/hosts, so that it resolves without a name server.
func (in *installer) hosts(name string) (outFile, bool) {
	b, err := in.root.ReadFile("etc/hosts")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return outFile{}, false
	}
	for _, l := range strings.Split(string(b), "\n") {
		for i, w := range strings.Fields(l) {
			if i > 0 && w == name {
				return outFile{}, false
			}
		}
	}
	text := string(b)
	if text == "" {
		text = "127.0.0.1 localhost\n::1 localhost\n"
	}
	return outFile{"/etc/hosts", strings.TrimRight(text, "\n") + "\n127.0.1.1 " + name + "\n", 0o644}, true
}
