package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ingot-metal/ingot/api"
	"golang.org/x/sys/unix"
)

// device is a block device that a plan makes: a target, or something that lies on targets and nothing else. Like a target it is what
// functions that write take, and only a storageHost makes one.
type device struct {
	path   string // the node to name it by: /dev/vda2, /dev/md0, /dev/mapper/vgroot-lvroot
	kernel string // the kernel's name: vda2, md0, dm-0
	size   int64
	sector int
	disk   *target // set for whole disks
}

// storageHost is what making storage needs of a machine. The real one is kernelHost; tests write down what is asked.
type storageHost interface {
	run(ctx context.Context, name string, args ...string) error
	output(ctx context.Context, name string, args ...string) (string, error)
	// claim takes a whole disk and clears what it says about itself and its old partitions.
	claim(ctx context.Context, t target) (device, error)
	// table writes a partition table, clearing both ends of every partition.
	table(ctx context.Context, d device, ptable, id string, parts []tablePart) error
	// partition waits for a partition of a device.
	partition(ctx context.Context, d device, p tablePart) (device, error)
	// made finds a device that a command has just made, and clears its ends when it is fresh.
	made(ctx context.Context, path string) (device, error)
	// bcacheAdd registers a formatted device; for a backing device it returns the bcache's node.
	bcacheAdd(ctx context.Context, d device, backing bool) (string, error)
	// bcacheSet writes an attribute of a bcache.
	bcacheSet(ctx context.Context, d device, attr, value string) error
	// bcacheUUID is what a backing device is known by.
	bcacheUUID(d device) (string, error)
	// quiet keeps an array from filling its members while the machine has better things to do; it goes on at the next start.
	quiet(d device)
}

// storageMaker carries out a checked plan.
type storageMaker struct {
	plan    *storagePlan
	host    storageHost
	targets map[string]target // by the disk's ID
	home    string            // host name that arrays belong to
	mkfs    mkfsTarget
	logf    func(string, ...any)

	devices map[string]device      // what has been made, by ID
	tables  map[string][]tablePart // as written
	sets    map[string]string      // bcache cache sets by the cache's ID
	ids     map[string]string      // of partition tables and backing devices, by ID
}

// layouts places all partitions of disks before any disk is written. Devices that are yet to be made are looked at when they are there.
func (p *storagePlan) layouts(targets map[string]target) error {
	for _, d := range p.disks() {
		if d.PTable == "" {
			continue
		}
		t := targets[d.ID]
		if _, err := p.layout(d, t.disk.Size, t.disk.BlockSize, 0); err != nil {
			return fmt.Errorf("refused: disk %s: %w", label(*d.Disk), err)
		}
	}
	return nil
}

// run makes everything but the mounts.
func (m *storageMaker) run(ctx context.Context) error {
	m.devices, m.tables, m.sets = map[string]device{}, map[string][]tablePart{}, map[string]string{}
	m.ids = map[string]string{}
	if err := m.foreignGroups(ctx); err != nil {
		return err
	}
	// all disks are cleared first: what an old array or volume group on one says must not be found while another is worked on
	for _, d := range m.plan.disks() {
		t := m.targets[d.ID]
		m.logf("%s is %s (serial %q, %d MiB): cleared", d.ID, t.disk.Path, t.disk.Serial, t.disk.Size/mib)
		dev, err := m.host.claim(ctx, t)
		if err != nil {
			return fmt.Errorf("%s: %w", t.disk.Path, err)
		}
		m.devices[d.ID] = dev
	}
	for i := range m.plan.items {
		it := &m.plan.items[i]
		if err := m.item(ctx, it); err != nil {
			return fmt.Errorf("%s %s: %w", it.Type, it.ID, err)
		}
	}
	return nil
}

func (m *storageMaker) item(ctx context.Context, it *api.StorageItem) error {
	var err error
	switch it.Type {
	case api.StorageDisk:
	case api.StoragePartition:
		for _, t := range m.tables[it.Device] {
			if t.number == it.Number && it.Flag != "extended" {
				m.devices[it.ID], err = m.host.partition(ctx, m.devices[it.Device], t)
			}
		}
		return err
	case api.StorageRAID:
		err = m.raid(ctx, it)
	case api.StorageVG:
		return m.volumeGroup(ctx, it)
	case api.StorageLV:
		return m.logicalVolume(ctx, it)
	case api.StorageBcache:
		err = m.bcache(ctx, it)
	case api.StorageFormat:
		argv, err := m.mkfs.command(it)
		if err != nil {
			return err
		}
		return m.host.run(ctx, argv[0], append(argv[1:], m.devices[it.Volume].path)...)
	}
	if err != nil || it.PTable == "" {
		return err
	}
	d := m.devices[it.ID]
	slack := int64(0)
	if it.Type != api.StorageDisk {
		slack = int64(len(m.plan.below(it))) * 4 * mib
	}
	parts, err := m.plan.layout(it, d.size, d.sector, slack)
	if err != nil {
		return err
	}
	m.logf("%s: %s with %d partitions", d.path, map[string]string{"gpt": "GPT", "msdos": "MBR"}[it.PTable], len(parts))
	m.tables[it.ID] = parts
	m.ids[it.ID] = newUUID()
	if it.PTable == "msdos" {
		m.ids[it.ID] = m.ids[it.ID][:8]
	}
	return m.host.table(ctx, d, it.PTable, m.ids[it.ID], parts)
}

func (m *storageMaker) paths(ids []string) []string {
	var out []string
	for _, id := range ids {
		out = append(out, m.devices[id].path)
	}
	return out
}

// arrayNode is where an array appears: /dev/md0 for the kernel's own kind of name, else below /dev/md.
func arrayNode(name string) string {
	if n, ok := strings.CutPrefix(name, "md"); ok {
		if _, err := strconv.ParseUint(n, 10, 16); err == nil {
			return "/dev/" + name
		}
	}
	return "/dev/md/" + name
}

// arrayUUID is a UUID as mdadm writes it.
func arrayUUID(uuid string) string {
	h := strings.ToLower(strings.ReplaceAll(uuid, "-", ""))
	return h[:8] + ":" + h[8:16] + ":" + h[16:24] + ":" + h[24:]
}

// raid makes an array. Its members' data begins 1 MiB in, so that the array has, but for that, the size that the model promised; mdadm
// alone would keep up to 128 MiB of each member for a later change of shape.
func (m *storageMaker) raid(ctx context.Context, it *api.StorageItem) error {
	if it.UUID == "" {
		it.UUID = newUUID()
	}
	args := []string{"--create", arrayNode(it.Name), "--run", "--metadata=1.2", "--homehost=" + m.home, "--uuid=" + arrayUUID(it.UUID), "--data-offset=1M",
		"--level=" + it.Level, "--raid-devices=" + strconv.Itoa(len(it.Devices))}
	if len(it.Spares) > 0 {
		args = append(args, "--spare-devices="+strconv.Itoa(len(it.Spares)))
	}
	if err := m.host.run(ctx, "mdadm", append(append(args, m.paths(it.Devices)...), m.paths(it.Spares)...)...); err != nil {
		return err
	}
	d, err := m.host.made(ctx, arrayNode(it.Name))
	if err != nil {
		return err
	}
	m.host.quiet(d)
	m.devices[it.ID] = d
	return nil
}

// lvmArgs keep LVM to the plan's own devices, whatever lies on others, and from waiting for a udev that is not there.
func (m *storageMaker) lvmArgs(vg *api.StorageItem) []string {
	var filter []string
	for _, p := range m.paths(vg.Devices) {
		filter = append(filter, `"a|^`+strings.NewReplacer(".", `\.`, "+", `\+`).Replace(p)+`$|"`)
	}
	return []string{"--config", "devices { filter=[ " + strings.Join(append(filter, `"r|.*|"`), ", ") + " ] use_devicesfile=0 }"}
}

// foreignGroups refuses volume groups whose names are taken on disks that the plan does not name, while nothing has been written: they would
// be found in the new ones' stead at the next start.
func (m *storageMaker) foreignGroups(ctx context.Context) error {
	if !m.plan.has(api.StorageVG) {
		return nil
	}
	out, err := m.host.output(ctx, "lvm", "vgs", "--noheadings", "-o", "vg_name,pv_name")
	if err != nil {
		return err
	}
	for _, l := range strings.Split(out, "\n") {
		f := strings.Fields(l)
		if len(f) != 2 || m.onTarget(f[1]) {
			continue
		}
		for _, it := range m.plan.items {
			if it.Type == api.StorageVG && it.Name == f[0] {
				return fmt.Errorf("refused: %s, which the plan does not name, has a volume group of the name %s", f[1], f[0])
			}
		}
	}
	return nil
}

var partitionSuffix = regexp.MustCompile(`^(p?[0-9]+)?$`)

// onTarget says whether a device is a disk of the plan, or a partition of one.
func (m *storageMaker) onTarget(path string) bool {
	for _, t := range m.targets {
		if rest, ok := strings.CutPrefix(path, t.disk.Path); ok && partitionSuffix.MatchString(rest) {
			return true
		}
	}
	return false
}

func (m *storageMaker) volumeGroup(ctx context.Context, it *api.StorageItem) error {
	conf := m.lvmArgs(it)
	for _, p := range m.paths(it.Devices) {
		if err := m.host.run(ctx, "lvm", append(append([]string{"pvcreate"}, conf...), "-ff", "-y", "--dataalignment", "1m", p)...); err != nil {
			return err
		}
	}
	return m.host.run(ctx, "lvm", append(append(append([]string{"vgcreate"}, conf...), "-y", "--physicalextentsize", "4m", it.Name), m.paths(it.Devices)...)...)
}

// logicalVolume makes a volume of whole extents. What the model counts on an array may be an extent or two more than there is.
func (m *storageMaker) logicalVolume(ctx context.Context, it *api.StorageItem) error {
	vg := m.plan.byID[it.VolGroup]
	conf := m.lvmArgs(vg)
	out, err := m.host.output(ctx, "lvm", append(append([]string{"vgs"}, conf...), "--noheadings", "--nosuffix", "--units", "b", "-o", "vg_free", vg.Name)...)
	if err != nil {
		return err
	}
	free, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	if err != nil {
		return fmt.Errorf("lvm vgs: %q", out)
	}
	const extent = 4 * mib
	size := it.Size / extent * extent
	if over := size - free; over > 0 {
		slack := int64(0)
		if m.plan.under(vg.ID, api.StorageRAID) || m.plan.under(vg.ID, api.StorageBcache) {
			for _, x := range m.plan.items {
				slack += int64(len(x.Devices)) * 2 * extent
			}
		}
		if over > slack || free < extent {
			return fmt.Errorf("%s has %d bytes left, %d are needed", vg.Name, free, size)
		}
		m.logf("%s: %d bytes, %d less than planned: the array under it keeps them for itself", it.ID, free, over)
		size = free / extent * extent
	}
	err = m.host.run(ctx, "lvm", append(append([]string{"lvcreate"}, conf...), "-y", "-W", "y", "-Z", "y", "-n", it.Name, "-L", strconv.FormatInt(size, 10)+"b", vg.Name)...)
	if err != nil {
		return err
	}
	m.devices[it.ID], err = m.host.made(ctx, mapperNode(vg.Name, it.Name))
	return err
}

// mapperNode is the device node of a logical volume.
func mapperNode(vg, lv string) string {
	double := func(s string) string { return strings.ReplaceAll(s, "-", "--") }
	return "/dev/mapper/" + double(vg) + "-" + double(lv)
}

// bcache makes a cache set, once for all that share it, and a backing device that it caches.
func (m *storageMaker) bcache(ctx context.Context, it *api.StorageItem) error {
	cache, backing := m.devices[it.Cache], m.devices[it.Backing]
	set := m.sets[it.Cache]
	if set == "" {
		set = newUUID()
		if err := m.host.run(ctx, "make-bcache", "-C", "--wipe-bcache", "--cset-uuid", set, cache.path); err != nil {
			return err
		}
		if _, err := m.host.bcacheAdd(ctx, cache, false); err != nil {
			return err
		}
		m.sets[it.Cache] = set
	}
	err := m.host.run(ctx, "make-bcache", "-B", "--wipe-bcache", backing.path)
	if err != nil {
		return err
	}
	if m.ids[it.ID], err = m.host.bcacheUUID(backing); err != nil {
		return err
	}
	node, err := m.host.bcacheAdd(ctx, backing, true)
	if err != nil {
		return err
	}
	d, err := m.host.made(ctx, node)
	if err != nil {
		return err
	}
	if err := m.host.bcacheSet(ctx, d, "attach", set); err != nil {
		return fmt.Errorf("attach its cache: %w", err)
	}
	if err := m.host.bcacheSet(ctx, d, "cache_mode", firstOf(it.Mode, "writethrough")); err != nil {
		return fmt.Errorf("set its mode: %w", err)
	}
	m.devices[it.ID] = d
	return nil
}

// kernelHost is the real machine.
type kernelHost struct {
	cmd  commander
	sys  system
	logf func(string, ...any)
	// again frees a disk that something has taken hold of once more
	again func(ctx context.Context) error
}

func (h kernelHost) run(ctx context.Context, name string, args ...string) error {
	return h.cmd.run(ctx, name, args...)
}

func (h kernelHost) output(ctx context.Context, name string, args ...string) (string, error) {
	return h.cmd.output(ctx, name, args...)
}

func (h kernelHost) claim(ctx context.Context, t target) (device, error) {
	f, err := t.open()
	for try := 0; errors.Is(err, unix.EBUSY) && try < 3; try++ {
		if err := h.again(ctx); err != nil {
			return device{}, err
		}
		f, err = t.open()
	}
	if err != nil {
		return device{}, err
	}
	defer f.Close()
	spans := []Span{{0, 2 * mib}, {t.disk.Size - mib, mib}}
	for _, p := range append(readPartitions(f, t.disk.Size, t.disk.BlockSize), t.disk.Parts...) {
		spans = append(spans, ends(p)...)
	}
	if err := zeroAll(ctx, f, t.disk.Size, spans); err != nil {
		return device{}, err
	}
	if err := rereadPartitions(f); err != nil {
		return device{}, err
	}
	return device{path: t.disk.Path, kernel: filepath.Base(t.disk.Path), size: t.disk.Size, sector: t.disk.BlockSize, disk: &t}, nil
}

// ends are where a device says what it holds: LVM, bcache and RAID at the begin, older RAID and the second GPT at the end.
func ends(s Span) []Span {
	return []Span{{s.Start, min(2*mib, s.Size)}, {max(s.Start, s.Start+s.Size-mib), min(mib, s.Size)}}
}

// zeroAll clears ranges, as far as they lie on the device.
func zeroAll(ctx context.Context, f *os.File, size int64, spans []Span) error {
	var in []Span
	for _, s := range spans {
		start, end := max(s.Start, 0), min(s.Start+s.Size, size)
		if start < end {
			in = append(in, Span{start, end - start})
		}
	}
	for _, s := range mergeSpans(in) {
		if err := zero(ctx, f, s, nil); err != nil {
			return err
		}
	}
	return f.Sync()
}

// open opens a device for writing, exclusively.
func (d device) open() (*os.File, error) {
	if d.disk != nil {
		return d.disk.open()
	}
	if d.kernel == "" {
		return nil, errors.New("refused: this device was not made by the plan")
	}
	return os.OpenFile(d.path, os.O_RDWR|os.O_EXCL|unix.O_CLOEXEC, 0)
}

func (h kernelHost) table(ctx context.Context, d device, ptable, id string, parts []tablePart) error {
	f, err := d.open()
	if err != nil {
		return err
	}
	defer f.Close()
	spans := []Span{{0, mib}, {d.size - mib, mib}}
	for _, p := range parts {
		if p.flag == "extended" {
			spans = append(spans, Span{p.start, mib})
			continue
		}
		spans = append(spans, ends(Span{p.start, p.end - p.start})...)
	}
	if err := zeroAll(ctx, f, d.size, spans); err != nil {
		return err
	}
	if err := writeTable(f, ptable, id, d.size, d.sector, parts); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return rereadPartitions(f)
}

func (h kernelHost) partition(ctx context.Context, d device, p tablePart) (device, error) {
	node := "/dev/" + partitionName(d.kernel, p.number)
	if err := waitNode(ctx, d.open, node, p); err != nil {
		return device{}, err
	}
	return device{path: node, kernel: filepath.Base(node), size: p.end - p.start, sector: d.sector}, nil
}

// partitionName is the kernel's name of a partition.
func partitionName(disk string, number int) string {
	if c := disk[len(disk)-1]; c >= '0' && c <= '9' {
		disk += "p"
	}
	return disk + strconv.Itoa(number)
}

// look finds the kernel's name and size of a device node.
func (h kernelHost) look(node string) (device, error) {
	var st unix.Stat_t
	if err := unix.Stat(node, &st); err != nil {
		return device{}, fmt.Errorf("%s: %w", node, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return device{}, fmt.Errorf("%s is no block device", node)
	}
	l, err := os.Readlink(h.sys.path("sys/dev/block", fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))))
	if err != nil {
		return device{}, err
	}
	d := device{path: node, kernel: filepath.Base(l)}
	d.size = h.sys.readInt("sys/class/block", d.kernel, "size") * 512
	if d.sector = int(h.sys.readInt("sys/class/block", d.kernel, "queue/logical_block_size")); d.sector == 0 {
		d.sector = 512
	}
	return d, nil
}

func (h kernelHost) made(ctx context.Context, node string) (device, error) {
	var d device
	var err error
	for i := 0; i < 100; i++ {
		if d, err = h.look(node); err == nil && d.size > 0 {
			break
		}
		if err == nil {
			err = fmt.Errorf("%s has no size", node)
		}
		select {
		case <-ctx.Done():
			return device{}, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	if err != nil {
		return device{}, err
	}
	f, err := d.open()
	for i := 0; errors.Is(err, unix.EBUSY) && i < 50; i++ { // udev may be looking at it
		time.Sleep(100 * time.Millisecond)
		f, err = d.open()
	}
	if err != nil {
		return device{}, err
	}
	defer f.Close()
	return d, zeroAll(ctx, f, d.size, ends(Span{0, d.size}))
}

func (h kernelHost) bcacheAdd(ctx context.Context, d device, backing bool) (string, error) {
	loadModule(ctx, h.sys, h.cmd, "bcache")
	b := "sys/class/block/" + d.kernel
	// udev may have been faster
	if !h.sys.exists(b, "bcache") {
		if err := h.sys.write(d.path, "sys/fs/bcache/register"); err != nil && !h.sys.exists(b, "bcache") {
			return "", fmt.Errorf("register %s: %w", d.path, err)
		}
	}
	for i := 0; i < 100; i++ {
		if !backing && h.sys.exists(b, "bcache/set") {
			return "", nil
		}
		if l, err := os.Readlink(h.sys.path(b, "bcache/dev")); backing && err == nil {
			return "/dev/" + filepath.Base(l), nil
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return "", fmt.Errorf("the kernel does not take %s as bcache", d.path)
}

func (h kernelHost) bcacheSet(ctx context.Context, d device, attr, value string) error {
	h.logf("%s: %s is %s", d.kernel, attr, value)
	return h.sys.write(value, "sys/class/block", d.kernel, "bcache", attr)
}

func (h kernelHost) bcacheUUID(d device) (string, error) {
	f, err := os.Open(d.path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	u := make([]byte, 16)
	if _, err := f.ReadAt(u, 4096+40); err != nil { // behind checksum, offset, version and magic number of the superblock
		return "", fmt.Errorf("read the superblock of %s: %w", d.path, err)
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:]), nil
}

func (h kernelHost) quiet(d device) {
	if h.sys.exists("sys/class/block", d.kernel, "md/sync_action") { // levels without redundancy have none
		if err := h.sys.write("frozen", "sys/class/block", d.kernel, "md/sync_action"); err != nil {
			h.logf("%s: %v", d.kernel, err)
		}
	}
}

// loadModule makes sure of a kernel module that nothing else asks for. What is missing shows at its first use.
func loadModule(ctx context.Context, s system, c commander, name string) {
	if s.exists("sys/module", name) {
		return
	}
	if err := c.run(ctx, "modprobe", "-q", "--", name); err != nil && c.log != nil {
		c.log(err.Error())
	}
}

// mkfsTarget is the system that will mount what is made here: old kernels cannot read what new tools make.
type mkfsTarget struct{ enterprise, sles int }

// command is the program that makes a file system, without the device.
func (t mkfsTarget) command(it *api.StorageItem) ([]string, error) {
	var args []string
	opt := func(flag, v string) {
		if v != "" {
			args = append(args, flag, v)
		}
	}
	switch it.FSType {
	case "ext2", "ext3", "ext4":
		ext := "nodiscard,lazy_itable_init=1,lazy_journal_init=1"
		if it.FSType == "ext2" {
			ext = "nodiscard,lazy_itable_init=1"
		}
		args = []string{"mkfs." + it.FSType, "-F", "-q", "-E", ext}
		if it.FSType == "ext4" && (t.enterprise > 0 && t.enterprise < 8 || t.sles > 0 && t.sles < 15) {
			opt("-O", "^metadata_csum")
		}
		opt("-U", it.UUID)
		opt("-L", clip(it.Label, 16))
	case "vfat", "fat32", "fat16":
		args = []string{"mkfs.vfat"}
		opt("-F", map[string]string{"fat16": "16"}[it.FSType])
		if it.FSType != "fat16" {
			opt("-F", "32")
		}
		opt("-i", strings.ReplaceAll(it.UUID, "-", ""))
		opt("-n", strings.ToUpper(clip(it.Label, 11)))
	case "xfs":
		args = []string{"mkfs.xfs", "-f", "-q", "-K"}
		meta := []string{"uuid=" + it.UUID}
		switch {
		case t.enterprise > 0 && t.enterprise < 8 || t.sles > 0 && t.sles < 15:
			meta = append(meta, "bigtime=0", "inobtcount=0", "reflink=0")
		case t.enterprise == 8 || t.sles == 15:
			meta = append(meta, "bigtime=0", "inobtcount=0")
		}
		opt("-m", strings.Join(meta, ","))
		opt("-L", clip(it.Label, 12))
	case "btrfs":
		args = []string{"mkfs.btrfs", "-f", "-q", "-K"}
		opt("-U", it.UUID)
		opt("-L", clip(it.Label, 255))
	case "swap":
		args = []string{"mkswap"}
		opt("-U", it.UUID)
		opt("-L", clip(it.Label, 15))
	default:
		return nil, fmt.Errorf("file system %q is not supported", it.FSType)
	}
	return args, nil
}

// mkfsFor reads from a plan what it installs.
func mkfsFor(p api.InstallPlan) mkfsTarget {
	os, series, _ := strings.Cut(p.BaseImage, "/")
	if p.OSystem != "" && p.OSystem != "custom" {
		os, series = p.OSystem, p.Series
	}
	digits := strings.TrimLeftFunc(series, func(c rune) bool { return c < '0' || c > '9' })
	n := 0
	if len(digits) > 0 {
		n = int(digits[0] - '0')
	}
	if len(digits) > 1 && n == 1 && digits[1] >= '0' && digits[1] <= '9' { // 10, 12, 15
		n = n*10 + int(digits[1]-'0')
	}
	switch {
	case slices.Contains([]string{"centos", "rhel", "ol", "rocky", "almalinux", "alma"}, os):
		return mkfsTarget{enterprise: n}
	case os == "suse" || os == "sles":
		return mkfsTarget{sles: n}
	}
	return mkfsTarget{}
}
