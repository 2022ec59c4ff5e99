package layout

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The bounds of a custom layout: it comes from a machine, which may be anybody's.
const (
	maxCustom      = 1 << 20
	maxCustomNames = 4096
)

var deviceName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]{0,126}$`)

// customDevice is one entry of a custom layout. Which fields it may have depends on its type.
type customDevice struct {
	Type       string       `json:"type"`
	PTable     string       `json:"ptable"`
	Boot       bool         `json:"boot"`
	Partitions []customPart `json:"partitions"`
	Members    []string     `json:"members"`
	Volumes    []customPart `json:"volumes"`
	Level      *int         `json:"level"`
	Spares     []string     `json:"spares"`
	Backing    string       `json:"backing-device"`
	Cache      string       `json:"cache-device"`
	CacheMode  string       `json:"cache-mode"`
	FS         string       `json:"fs"`
}

type customPart struct {
	Name     string `json:"name"`
	Size     string `json:"size"`
	Bootable bool   `json:"bootable"`
	FS       string `json:"fs"`
	bytes    int64
}

type customMount struct {
	Device  string `json:"device"`
	Options string `json:"options"`
}

// Custom is a storage layout that a commissioning script wrote.
type Custom struct {
	devices map[string]customDevice
	mounts  map[string]customMount
	order   []string          // names of devices, sorted
	inside  map[string]string // partition or volume: the device that it lies on
}

var customKeys = map[string]struct{ must, may []string }{
	"disk":    {nil, []string{"ptable", "boot", "partitions", "fs"}},
	"lvm":     {[]string{"members"}, []string{"volumes"}},
	"raid":    {[]string{"level", "members"}, []string{"spares", "fs"}},
	"bcache":  {[]string{"backing-device", "cache-device"}, []string{"cache-mode", "fs"}},
	"special": {[]string{"fs"}, nil},
}

var customFS = []string{"ext2", "ext4", "xfs", "fat32", "vfat", "swap", "btrfs", "zfsroot"}

// strict decodes one JSON value and refuses fields that v does not have.
func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

// ParseCustom reads and checks a custom layout by itself, without regard to a machine.
func ParseCustom(data []byte) (*Custom, error) {
	if len(data) > maxCustom {
		return nil, errors.New("the storage configuration is too large")
	}
	var doc struct {
		Layout map[string]json.RawMessage `json:"layout"`
		Mounts map[string]customMount     `json:"mounts"`
	}
	if err := strict(data, &doc); err != nil {
		return nil, fmt.Errorf("invalid storage configuration: %w", err)
	}
	if doc.Layout == nil || doc.Mounts == nil {
		return nil, errors.New("invalid storage configuration: layout and mounts are required")
	}
	c := &Custom{devices: map[string]customDevice{}, mounts: doc.Mounts, inside: map[string]string{}, order: slices.Sorted(maps.Keys(doc.Layout))}
	if len(c.order) > maxCustomNames || len(c.mounts) > maxCustomNames {
		return nil, errors.New("invalid storage configuration: too many devices")
	}
	for _, name := range c.order {
		d, err := parseCustomDevice(name, doc.Layout[name])
		if err != nil {
			return nil, fmt.Errorf("invalid storage configuration: %s: %w", name, err)
		}
		c.devices[name] = *d
	}
	for _, name := range c.order {
		d := c.devices[name]
		for _, part := range slices.Concat(d.Partitions, d.Volumes) {
			if _, taken := c.devices[part.Name]; taken || c.inside[part.Name] != "" {
				return nil, fmt.Errorf("invalid storage configuration: two devices have the name %s", part.Name)
			}
			c.inside[part.Name] = name
		}
	}
	if len(c.inside) > maxCustomNames {
		return nil, errors.New("invalid storage configuration: too many devices")
	}
	return c, c.checkMounts()
}

func parseCustomDevice(name string, raw json.RawMessage) (*customDevice, error) {
	if !deviceName.MatchString(name) {
		return nil, errors.New("not a device name")
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(raw, &keys); err != nil {
		return nil, err
	}
	d := new(customDevice)
	if err := strict(raw, d); err != nil {
		return nil, err
	}
	rule, ok := customKeys[d.Type]
	if !ok {
		return nil, fmt.Errorf("unknown type %q", d.Type)
	}
	for _, k := range rule.must {
		if keys[k] == nil {
			return nil, fmt.Errorf("%s is required", k)
		}
	}
	for k := range keys {
		if k != "type" && !slices.Contains(rule.must, k) && !slices.Contains(rule.may, k) {
			return nil, fmt.Errorf("a %s has no %s", d.Type, k)
		}
	}
	switch {
	case d.PTable != "" && d.PTable != "gpt" && d.PTable != "mbr":
		return nil, fmt.Errorf("ptable %q is neither gpt nor mbr", d.PTable)
	case len(d.Partitions) > 0 && d.PTable == "":
		return nil, errors.New("partitions need a ptable")
	case d.Type == "lvm" && len(d.Members) == 0 || d.Type == "raid" && len(d.Members) == 0:
		return nil, errors.New("members are required")
	case d.CacheMode != "" && !slices.Contains(CacheModes, d.CacheMode):
		return nil, fmt.Errorf("unknown cache-mode %q", d.CacheMode)
	case d.Type == "special" && d.FS != "tmpfs" && d.FS != "ramfs":
		return nil, fmt.Errorf("a special file system is tmpfs or ramfs, not %q", d.FS)
	case d.Type != "special" && d.FS != "" && !slices.Contains(customFS, d.FS):
		return nil, fmt.Errorf("unknown file system %q", d.FS)
	}
	if d.Type == "raid" {
		if d.Level == nil || !slices.Contains(RAIDs, "raid-"+strconv.Itoa(*d.Level)) {
			return nil, errors.New("the level is not 0, 1, 5, 6 or 10")
		}
		if *d.Level == 0 && len(d.Spares) > 0 {
			return nil, errors.New("RAID level 0 has no spares")
		}
	}
	for _, list := range [][]customPart{d.Partitions, d.Volumes} {
		for i := range list {
			part := &list[i]
			m := customText.FindStringSubmatch(part.Size)
			if !deviceName.MatchString(part.Name) || m == nil {
				return nil, fmt.Errorf("%q of size %q is not a name with a size such as 10G", part.Name, part.Size)
			}
			v, err := strconv.ParseFloat(m[1], 64)
			if v *= map[string]float64{"M": 1e6, "G": 1e9, "T": 1e12}[m[2]]; err != nil || v >= 1<<62 {
				return nil, fmt.Errorf("size %q of %s", part.Size, part.Name)
			}
			part.bytes = int64(v)
			if part.FS != "" && !slices.Contains(customFS, part.FS) {
				return nil, fmt.Errorf("unknown file system %q", part.FS)
			}
		}
	}
	for _, n := range slices.Concat(d.Members, d.Spares) {
		if !deviceName.MatchString(n) {
			return nil, fmt.Errorf("%q is not a device name", n)
		}
	}
	if d.Type == "bcache" && (!deviceName.MatchString(d.Backing) || !deviceName.MatchString(d.Cache)) {
		return nil, errors.New("the backing or cache device is not a device name")
	}
	return d, nil
}

// fsOf is the type of file system that a name has; ok says whether the layout knows the name.
func (c *Custom) fsOf(name string) (fs string, ok bool) {
	if d, here := c.devices[name]; here {
		return d.FS, d.Type != "disk" // a file system on a bare disk is accepted in the document, and ignored
	}
	on, here := c.inside[name]
	if !here {
		return "", false
	}
	d := c.devices[on]
	for _, part := range slices.Concat(d.Partitions, d.Volumes) {
		if part.Name == name {
			return part.FS, true
		}
	}
	return "", false
}

func (c *Custom) checkMounts() error {
	mounted := map[string]bool{}
	for _, at := range slices.Sorted(maps.Keys(c.mounts)) {
		m := c.mounts[at]
		fs, known := c.fsOf(m.Device)
		switch {
		case !known:
			return fmt.Errorf("invalid storage configuration: unknown device %q is mounted at %s", m.Device, at)
		case fs == "":
			return fmt.Errorf("invalid storage configuration: the device %s is mounted and has no file system", m.Device)
		case fs != "swap" && (!path.IsAbs(at) || path.Clean(at) != at):
			return fmt.Errorf("invalid storage configuration: %q is not a path", at)
		case mounted[m.Device]:
			return fmt.Errorf("invalid storage configuration: the device %s is mounted twice", m.Device)
		case len(at) > 255 || len(m.Options) > 255 || strings.ContainsAny(m.Options, "\r\n\x00"):
			return fmt.Errorf("invalid storage configuration: the mount at %q", at)
		}
		mounted[m.Device] = true
	}
	for _, name := range c.order {
		if c.devices[name].Type == "special" && !mounted[name] {
			return fmt.Errorf("invalid storage configuration: the special file system %s is not mounted", name)
		}
	}
	return nil
}

// customPlan puts a custom layout on a machine.
type customPlan struct {
	*Custom
	t     *Target
	out   Storage
	sizes map[Ref]int64
	refs  map[string]Ref // by the layout's names
	used  map[Ref]string
	state map[string]int // of a group: 1 being made, 2 made
}

// Storage puts the layout on a machine. An error says why it does not fit.
func (c *Custom) Storage(t Target) (Storage, error) {
	p := &customPlan{Custom: c, t: &t, sizes: map[Ref]int64{}, refs: map[string]Ref{}, used: map[Ref]string{}, state: map[string]int{}}
	if err := p.disks(); err != nil {
		return Storage{}, err
	}
	for _, name := range c.order {
		if err := p.group(name); err != nil {
			return Storage{}, err
		}
	}
	for _, name := range c.order {
		if d := c.devices[name]; d.Type == "special" {
			p.out.Special = append(p.out.Special, *p.filesystem(name, d.FS))
		}
	}
	return p.out, nil
}

// filesystem is what a device gets, with its mount.
func (p *customPlan) filesystem(name, kind string) *FS {
	if kind == "" {
		return nil
	}
	fs := &FS{Type: kind, UUID: p.t.NewUUID()}
	if kind == "fat32" || kind == "vfat" {
		fs.UUID = VolumeID(fs.UUID)
	}
	for at, m := range p.mounts {
		if m.Device == name {
			fs.MountPoint, fs.Options = at, m.Options
			if kind == "swap" {
				fs.MountPoint = "none"
			}
		}
	}
	return fs
}

// disks lays out the disks: those named, and those that only are members.
func (p *customPlan) disks() error {
	var missing []string
	need := func(name string) {
		if _, known := p.fsOf(name); known {
			return
		}
		disk := p.t.named(name)
		if disk == nil {
			if !slices.Contains(missing, name) {
				missing = append(missing, name)
			}
			return
		}
		p.refs[name] = Ref{Device: name}
		p.sizes[Ref{Device: name}] = disk.Size
	}
	for _, name := range p.order {
		switch d := p.devices[name]; d.Type {
		case "disk":
			need(name)
			if d.Boot {
				if p.out.Boot != "" {
					return fmt.Errorf("both %s and %s are to be the boot disk", p.out.Boot, name)
				}
				p.out.Boot = name
			}
		case "bcache":
			need(d.Backing)
			need(d.Cache)
		default:
			for _, m := range slices.Concat(d.Members, d.Spares) {
				need(m)
			}
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return fmt.Errorf("Unknown disk(s): %s", strings.Join(missing, ", ")) //nolint:staticcheck // stands in an event by itself
	}
	boot := p.out.Boot
	if boot == "" {
		boot = p.t.Boot
	}
	for _, name := range p.order {
		d := p.devices[name]
		if d.Type != "disk" || d.PTable == "" {
			continue
		}
		t := Table{Device: name, Type: strings.ToUpper(d.PTable)}
		free := Usable(p.sizes[Ref{Device: name}], p.t.Firmware, p.t.Arch)
		numbers := Numbers(len(d.Partitions), t.Type, p.t.Firmware, p.t.Arch, name == boot)
		for i, in := range d.Partitions {
			part := Partition{Number: numbers[i], Size: floor(in.bytes), UUID: p.t.NewUUID(), Bootable: in.Bootable}
			if part.Size < MinDevice || part.Size > free || t.Type == MBR && part.Size > MaxMBR {
				return fmt.Errorf("partition %s of %s does not fit on the disk %s", in.Name, in.Size, name)
			}
			free -= part.Size
			if fs := p.filesystem(in.Name, in.FS); fs != nil {
				part.FSType, part.FSUUID, part.MountPoint, part.Options = fs.Type, fs.UUID, fs.MountPoint, fs.Options
				if fs.MountPoint == "/boot/efi" {
					part.Flag = "boot"
				}
			}
			ref := Ref{name, part.Number}
			p.refs[in.Name], p.sizes[ref] = ref, part.Size
			if in.FS != "" {
				p.used[ref] = "a file system"
			}
			t.Partitions = append(t.Partitions, part)
		}
		p.used[Ref{Device: name}] = "a partition table"
		p.out.Tables = append(p.out.Tables, t)
	}
	return nil
}

// member makes sure that a device is there, and takes it for a group.
func (p *customPlan) member(group, name string) (Ref, error) {
	if _, here := p.devices[name]; here {
		if err := p.group(name); err != nil {
			return Ref{}, err
		}
	} else if on, here := p.inside[name]; here && p.devices[on].Type == "lvm" {
		if err := p.group(on); err != nil {
			return Ref{}, err
		}
	}
	ref, ok := p.refs[name]
	if !ok {
		return ref, fmt.Errorf("%s cannot be part of %s", name, group)
	}
	if by := p.used[ref]; by != "" {
		return ref, fmt.Errorf("%s cannot be part of %s: it has %s", name, group, by)
	}
	p.used[ref] = "a place in " + group
	return ref, nil
}

func (p *customPlan) members(group string, names []string) (refs []Ref, sizes []int64, err error) {
	for _, n := range names {
		ref, err := p.member(group, n)
		if err != nil {
			return nil, nil, err
		}
		refs, sizes = append(refs, ref), append(sizes, p.sizes[ref])
	}
	return refs, sizes, nil
}

// group makes a group after those that its members come from.
func (p *customPlan) group(name string) error {
	d := p.devices[name]
	if d.Type == "disk" || d.Type == "special" || p.state[name] == 2 {
		return nil
	}
	if p.state[name] == 1 {
		return fmt.Errorf("%s is made of itself", name)
	}
	p.state[name] = 1
	g := Group{Name: name, UUID: p.t.NewUUID(), FS: p.filesystem(name, d.FS)}
	var sizes, spares []int64
	var err error
	switch d.Type {
	case "lvm":
		g.Kind = VolumeGroup
		g.Members, sizes, err = p.members(name, d.Members)
	case "raid":
		g.Kind = "raid-" + strconv.Itoa(*d.Level)
		if g.Members, sizes, err = p.members(name, d.Members); err == nil {
			g.Spares, spares, err = p.members(name, d.Spares)
		}
		if problem := RAIDProblem(g.Kind, len(sizes), len(spares)); err == nil && problem != "" {
			err = errors.New(problem)
		}
	case "bcache":
		g.Kind, g.CacheMode = Bcache, "writethrough"
		if d.CacheMode != "" {
			g.CacheMode = d.CacheMode
		}
		if on, volume := p.inside[d.Backing]; volume && p.devices[on].Type == "lvm" {
			return errors.New("Bcache cannot use a logical volume as a backing device.") //nolint:staticcheck // MAAS's text
		}
		if g.Members, sizes, err = p.members(name, []string{d.Backing}); err != nil {
			return err
		}
		if g.Cache, err = p.cache(name, d.Cache); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	size := GroupSize(g.Kind, sizes, spares)
	for _, v := range d.Volumes {
		vol := Volume{Name: v.Name, UUID: p.t.NewUUID(), Size: floor(v.bytes), FS: p.filesystem(v.Name, v.FS)}
		if vol.Size < MinDevice || vol.Size > size {
			return fmt.Errorf("logical volume %s of %s does not fit in the volume group %s", v.Name, v.Size, name)
		}
		size -= vol.Size
		ref := Ref{Device: v.Name}
		p.refs[v.Name], p.sizes[ref] = ref, vol.Size
		if v.FS != "" {
			p.used[ref] = "a file system"
		}
		g.Volumes = append(g.Volumes, vol)
	}
	if d.Type != "lvm" {
		if size < MinDevice {
			return fmt.Errorf("the members of %s are too small", name)
		}
		ref := Ref{Device: name}
		p.refs[name], p.sizes[ref] = ref, size
		if d.FS != "" {
			p.used[ref] = "a file system"
		}
	}
	p.state[name] = 2
	p.out.Groups = append(p.out.Groups, g)
	return nil
}

// cache takes a device as a cache; several bcaches may share one.
func (p *customPlan) cache(group, name string) (Ref, error) {
	const caching = "a cache"
	if ref, ok := p.refs[name]; ok && p.used[ref] == caching {
		return ref, nil
	}
	ref, err := p.member(group, name)
	if err == nil {
		p.used[ref] = caching
	}
	return ref, err
}
