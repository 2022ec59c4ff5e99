package provisioner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// MachineSpec is what a machine is created with or changed to. A nil pointer leaves the field as it is, or at its default.
type MachineSpec struct {
	Architecture    *string
	Subarchitecture *string
	MACs            []string
	MinHWEKernel    *string
	HWEKernel       *string
	Hostname        *string
	Description     *string
	Domain          *string // name or id
	Zone            *string
	Pool            *string
	PowerType       *string
	PowerParameters map[string]string // those given
	SkipPowerCheck  bool
	CPUCount        *int64
	Memory          *string // MiB, or with a suffix
	SwapSize        *string // bytes, or with a decimal suffix
	EnableHWSync    *bool

	Commission       *bool // create: true when nil
	Deployed         bool  // create: it runs already
	CommissionParams CommissionParams
}

// CreateMachine adds a machine. An administrator's is commissioned unless that is declined, a user's waits to be accepted, and an anonymous
// one is a machine that enlists itself: it may turn out to be one that is already known.
func (s *Service) CreateMachine(ctx context.Context, spec MachineSpec) (*storage.Bundle, error) {
	a := ActorFrom(ctx)
	var b *storage.Bundle
	err := s.write(ctx, func(tx *storage.Tx) error {
		n, err := s.createMachine(ctx, tx, a, spec)
		if err != nil {
			return err
		}
		b, err = tx.LoadMachine(n.SystemID)
		return err
	})
	return b, err
}

func (s *Service) createMachine(ctx context.Context, tx *storage.Tx, a Actor, spec MachineSpec) (*storage.Node, error) {
	macs, fields := parseMACs(spec.MACs)
	domain, err := tx.DefaultDomain()
	if err != nil {
		return nil, err
	}
	n := &storage.Node{NodeType: storage.NodeMachine, Status: storage.StatusNew, ZoneID: storage.DefaultZoneID, DomainID: domain.ID,
		PowerState: "unknown", Netboot: true}
	pool := storage.DefaultPoolID
	n.PoolID = &pool
	if a.Anonymous {
		known, err := s.enlisted(tx, spec, macs)
		if err != nil {
			return nil, err
		}
		if known != nil {
			return known, s.enlistAgain(ctx, tx, known, spec, macs)
		}
	}
	ipmi := spec.PowerType != nil && *spec.PowerType == "ipmi"
	noArch := spec.Architecture == nil || *spec.Architecture == ""
	if noArch && !ipmi && !spec.Deployed {
		fields.add("architecture", "This field is required.")
	}
	if ipmi && noArch {
		macs = nil // it goes through enlistment, and is found by its BMC
	} else if len(spec.MACs) == 0 && !ipmi && !spec.Deployed {
		fields.add("mac_addresses", "This field is required.")
	}
	if err := s.applySpec(tx, n, spec, fields, true); err != nil {
		return nil, err
	}
	for _, mac := range macs {
		owner, err := tx.NodeByMAC(mac)
		if err == nil {
			fields.add("mac_addresses", fmt.Sprintf("MAC address %s already in use on %s.", mac, owner.Hostname))
		} else if !errors.Is(err, storage.ErrNotFound) {
			return nil, err
		}
	}
	if err := fields.err(); err != nil {
		return nil, err
	}
	if spec.Deployed {
		if a.Anonymous {
			return nil, Errorf(Unauthorized, "Forbidden")
		}
		n.Status, n.Netboot, n.OwnerID, n.PowerState = storage.StatusDeployed, false, a.ID(), "on"
	}
	if err := s.insertMachine(tx, n); err != nil {
		return nil, err
	}
	if err := s.addMACs(tx, n, macs, spec.MACs); err != nil {
		return nil, err
	}
	switch {
	case spec.Deployed:
		_, err := s.nodeToken(tx, n.ID)
		return n, err
	case a.Anonymous:
		if spec.Commission != nil && *spec.Commission {
			return n, s.beginEnlistCommissioning(tx, n)
		}
	case mayNode(a, n, permAdmin) && (spec.Commission == nil || *spec.Commission):
		// What stands against commissioning leaves the machine New: it was created, which is what was asked for.
		err := s.startCommissioning(ctx, tx, n, spec.CommissionParams)
		if e := new(Error); errors.As(err, &e) {
			return n, nil
		}
		return n, err
	}
	return n, nil
}

// enlisted finds the machine that enlists itself among those that are known but have no life yet: by its BMC, then by its addresses.
func (s *Service) enlisted(tx *storage.Tx, spec MachineSpec, macs []string) (*storage.Node, error) {
	fits := func(n storage.Node) bool {
		return n.NodeType == storage.NodeMachine && in(n.Status, storage.StatusNew, storage.StatusCommissioning)
	}
	if addr := spec.PowerParameters["power_address"]; addr != "" && spec.PowerType != nil && *spec.PowerType == "ipmi" {
		nodes, err := tx.Nodes(storage.NodeFilter{Types: []int64{storage.NodeMachine},
			Statuses: []storage.NodeStatus{storage.StatusNew, storage.StatusCommissioning}})
		if err != nil {
			return nil, err
		}
		for _, n := range nodes {
			if n.PowerType == "ipmi" && powerParams(&n)["power_address"] == addr {
				n, err := tx.LockNode(n.ID)
				return &n, err
			}
		}
	}
	for _, mac := range macs {
		n, err := tx.NodeByMAC(mac)
		if err == nil && fits(n) {
			n, err := tx.LockNode(n.ID)
			return &n, err
		}
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return nil, err
		}
	}
	return nil, nil
}

func (s *Service) enlistAgain(ctx context.Context, tx *storage.Tx, n *storage.Node, spec MachineSpec, macs []string) error {
	fields := fieldErrors{}
	if err := s.applySpec(tx, n, MachineSpec{Architecture: spec.Architecture, Subarchitecture: spec.Subarchitecture, PowerType: spec.PowerType,
		PowerParameters: spec.PowerParameters, SkipPowerCheck: spec.SkipPowerCheck}, fields, false); err != nil {
		return err
	}
	var fresh []string
	for _, mac := range macs {
		owner, err := tx.NodeByMAC(mac)
		switch {
		case errors.Is(err, storage.ErrNotFound):
			fresh = append(fresh, mac)
		case err != nil:
			return err
		case owner.ID != n.ID:
			fields.add("mac_addresses", fmt.Sprintf("MAC address %s already in use on %s.", mac, owner.Hostname))
		}
	}
	if err := fields.err(); err != nil {
		return err
	}
	if err := s.touchRevision(tx, n); err != nil {
		return err
	}
	if err := tx.UpdateNode(n); err != nil {
		return err
	}
	if err := s.addMACs(tx, n, fresh, spec.MACs); err != nil {
		return err
	}
	if n.Status == storage.StatusNew && spec.Commission != nil && *spec.Commission {
		return s.beginEnlistCommissioning(tx, n)
	}
	return nil
}

// insertMachine gives a new machine its identifier and its name.
func (s *Service) insertMachine(tx *storage.Tx, n *storage.Node) error {
	for try := 0; ; try++ {
		n.SystemID = newSystemID()
		_, err := tx.Node(n.SystemID)
		if errors.Is(err, storage.ErrNotFound) {
			break
		}
		if err != nil || try == 1000 {
			return errors.Join(err, errors.New("no free system_id found"))
		}
	}
	for try := 0; n.Hostname == ""; try++ {
		name := petname(2 + try/20)
		_, err := tx.NodeByHostname(name)
		if errors.Is(err, storage.ErrNotFound) {
			n.Hostname = name
		} else if err != nil {
			return err
		}
	}
	n.StatusChanged = tx.Now()
	if err := s.touchRevision(tx, n); err != nil {
		return err
	}
	return tx.InsertNode(n)
}

// addMACs gives a machine physical interfaces, the first being the one it boots from. typed are the addresses as the caller wrote them.
func (s *Service) addMACs(tx *storage.Tx, n *storage.Node, macs, typed []string) error {
	have, err := tx.InterfacesOf([]int64{n.ID})
	if err != nil {
		return err
	}
	next := len(have)
	for _, mac := range macs {
		vlan, err := s.vlanOfMAC(tx, mac)
		if err != nil {
			return err
		}
		i := &storage.Interface{NodeID: n.ID, Type: "physical", MACAddress: mac, MACTyped: spelling(typed, mac), Enabled: true, LinkConnected: true, VLANID: vlan}
		for i.Name = fmt.Sprintf("eth%d", next); slices.ContainsFunc(have, func(o storage.Interface) bool { return o.Name == i.Name }); next++ {
			i.Name = fmt.Sprintf("eth%d", next+1)
		}
		next++
		if err := tx.InsertInterface(i); err != nil {
			return err
		}
		if n.BootInterfaceID == nil {
			n.BootInterfaceID = &i.ID
			if err := tx.UpdateNode(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// vlanOfMAC is the VLAN on which an address was last seen asking for a lease.
func (s *Service) vlanOfMAC(tx *storage.Tx, mac string) (*int64, error) {
	leases, err := tx.LeasesOf(mac)
	if err != nil || len(leases) == 0 {
		return nil, err
	}
	newest := slices.MaxFunc(leases, func(a, b storage.Lease) int { return a.Updated.Compare(b.Updated) })
	sub, err := tx.Subnet(newest.SubnetID)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	return &sub.VLANID, err
}

// touchRevision numbers a change of the node that racks must see.
func (s *Service) touchRevision(tx *storage.Tx, n *storage.Node) error {
	rev, err := tx.Revision()
	n.Revision = rev
	return err
}

// fieldErrors collects what is wrong with a form, by field.
type fieldErrors map[string][]string

func (f fieldErrors) add(field, text string) { f[field] = append(f[field], text) }

func (f fieldErrors) err() error {
	if len(f) == 0 {
		return nil
	}
	return &Error{Kind: Invalid, Fields: f}
}

var (
	hostnameLabel = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$`)
	ipLikeName    = regexp.MustCompile(`^\d{1,3}(-\d{1,3}){3}$`)
	subarchName   = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$`)
)

var knownArchitectures = []string{"amd64", "arm64", "armhf", "i386", "ppc64el", "s390x", "riscv64"}

// applySpec checks a form against the store and writes it into n, which it does not save. What is wrong goes into fields.
func (s *Service) applySpec(tx *storage.Tx, n *storage.Node, spec MachineSpec, fields fieldErrors, create bool) error {
	if spec.Architecture != nil && *spec.Architecture != "" {
		arch, err := architecture(*spec.Architecture, spec.Subarchitecture)
		if err != nil {
			return err
		}
		if !slices.Contains(knownArchitectures, strings.SplitN(arch, "/", 2)[0]) || !subarchName.MatchString(strings.SplitN(arch, "/", 2)[1]) {
			fields.add("architecture", fmt.Sprintf("'%s' is not a valid architecture. It should be one of: '%s'.", arch, strings.Join(knownArchitectures, "/generic', '")+"/generic"))
		}
		n.Architecture = arch
	}
	if spec.Domain != nil && *spec.Domain != "" {
		d, err := s.findDomain(tx, *spec.Domain)
		if errors.Is(err, storage.ErrNotFound) {
			fields.add("domain", fmt.Sprintf("Select a valid choice. %s is not one of the available choices.", *spec.Domain))
		} else if err != nil {
			return err
		}
		n.DomainID = d.ID
	}
	if spec.Hostname != nil && *spec.Hostname != "" && !(create && likeAddress(*spec.Hostname)) {
		if err := s.applyHostname(tx, n, *spec.Hostname, fields); err != nil {
			return err
		}
	}
	if spec.Zone != nil && *spec.Zone != "" {
		z, err := tx.ZoneByName(*spec.Zone)
		if errors.Is(err, storage.ErrNotFound) {
			fields.add("zone", "Select a valid choice. That choice is not one of the available choices.")
		} else if err != nil {
			return err
		}
		n.ZoneID = z.ID
	}
	if spec.Pool != nil && *spec.Pool != "" {
		p, err := tx.PoolByName(*spec.Pool)
		if errors.Is(err, storage.ErrNotFound) {
			fields.add("pool", "Select a valid choice. That choice is not one of the available choices.")
		} else if err != nil {
			return err
		}
		n.PoolID = &p.ID
	}
	setText(&n.Description, spec.Description)
	checkMinKernel(form(fields), spec.MinHWEKernel)
	setText(&n.MinHWEKernel, spec.MinHWEKernel)
	setText(&n.HWEKernel, spec.HWEKernel)
	if spec.EnableHWSync != nil {
		n.EnableHWSync = *spec.EnableHWSync
	}
	if spec.CPUCount != nil {
		if *spec.CPUCount < 0 {
			fields.add("cpu_count", "Ensure this value is greater than or equal to 0.")
		}
		n.CPUCount = *spec.CPUCount
	}
	if spec.Memory != nil && *spec.Memory != "" {
		v, ok := parseMemory(*spec.Memory)
		if !ok {
			fields.add("memory", fmt.Sprintf("Invalid size for memory: %s", *spec.Memory))
		}
		n.Memory = v
	}
	if spec.SwapSize != nil && *spec.SwapSize != "" {
		v, ok := parseSize(*spec.SwapSize, "KMGT")
		if !ok {
			fields.add("swap_size", fmt.Sprintf("Invalid size for swap: %s", *spec.SwapSize))
		}
		n.SwapSize = &v
	}
	s.applyPower(n, spec, fields)
	return nil
}

func setText(dst *string, src *string) {
	if src != nil {
		*dst = *src
	}
}

// architecture puts the two parts together, as MAAS takes them.
func architecture(arch string, sub *string) (string, error) {
	if _, subarch, ok := strings.Cut(arch, "/"); ok {
		if sub != nil && *sub != "" {
			return "", Errorf(Invalid, "Subarchitecture cannot be specified twice.")
		}
		if strings.HasPrefix(subarch, "hwe-") || strings.HasPrefix(subarch, "ga-") {
			return "", Errorf(Invalid, "hwe_kernel can not be specified as part of the architecture: use min_hwe_kernel.")
		}
		return arch, nil
	}
	if sub != nil && *sub != "" {
		return arch + "/" + *sub, nil
	}
	return arch + "/generic", nil
}

func (s *Service) findDomain(tx *storage.Tx, nameOrID string) (storage.Domain, error) {
	d, err := tx.DomainByName(nameOrID)
	if errors.Is(err, storage.ErrNotFound) {
		if id, perr := strconv.ParseInt(nameOrID, 10, 64); perr == nil {
			return tx.Domain(id)
		}
	}
	return d, err
}

// likeAddress says whether a host name is only an address, in digits or as reverse zones spell it: such a machine gets a better name.
func likeAddress(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil || ipLikeName.MatchString(strings.SplitN(name, ".", 2)[0])
}

func (s *Service) applyHostname(tx *storage.Tx, n *storage.Node, name string, fields fieldErrors) error {
	host, domain, dotted := strings.Cut(name, ".")
	if host == "" {
		fields.add("hostname", "DNS name contains an empty label.")
	} else if !hostnameLabel.MatchString(host) {
		fields.add("hostname", "Invalid hostname: Label must contain only letters, digits and hyphens, at most 63 of them, and begin and end with a letter or digit.")
	}
	if dotted {
		d, err := tx.DomainByName(domain)
		if errors.Is(err, storage.ErrNotFound) {
			fields.add("hostname", "Nonexistant domain.")
		} else if err != nil {
			return err
		}
		n.DomainID = d.ID
	}
	if len(fields["hostname"]) > 0 {
		return nil
	}
	other, err := tx.NodeByHostname(host)
	if err == nil && other.ID != n.ID {
		fields.add("hostname", "Node with this Hostname already exists.")
	} else if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	n.Hostname = host
	return nil
}

// applyPower checks power type and parameters against the drivers' schema.
func (s *Service) applyPower(n *storage.Node, spec MachineSpec, fields fieldErrors) {
	params := powerParams(n)
	if spec.PowerType != nil {
		if *spec.PowerType != n.PowerType {
			params = map[string]string{}
		}
		n.PowerType = *spec.PowerType
	} else if len(spec.PowerParameters) == 0 {
		return
	}
	maps.Copy(params, spec.PowerParameters)
	driver, known := s.Power[n.PowerType]
	switch {
	case n.PowerType == "" || n.PowerType == "manual" && !known:
		if len(spec.PowerParameters) > 0 && !spec.SkipPowerCheck {
			fields.add("power_parameters", unknownParams(slices.Sorted(maps.Keys(spec.PowerParameters))))
		}
		params = map[string]string{}
	case !known:
		fields.add("power_type", fmt.Sprintf("Select a valid choice. %s is not one of the available choices.", n.PowerType))
	default:
		var unknown []string
		schema := map[string]bool{}
		for _, f := range driver.Describe().Fields {
			schema[f.Name] = true
			if params[f.Name] == "" && f.Default != "" {
				params[f.Name] = f.Default
			}
			if params[f.Name] == "" && f.Required && !spec.SkipPowerCheck {
				fields.add("power_parameters", f.Label+": This field is required.")
			}
			if v := params[f.Name]; f.Kind == "choice" && v != "" && !spec.SkipPowerCheck &&
				!slices.ContainsFunc(f.Choices, func(c [2]string) bool { return c[0] == v }) {
				fields.add("power_parameters", fmt.Sprintf("%s: Select a valid choice. %s is not one of the available choices.", f.Label, v))
			}
		}
		for _, k := range slices.Sorted(maps.Keys(params)) {
			if !schema[k] {
				unknown = append(unknown, k)
			}
		}
		if len(unknown) > 0 && !spec.SkipPowerCheck {
			fields.add("power_parameters", unknownParams(unknown))
		}
	}
	raw, err := json.Marshal(params)
	if err != nil {
		fields.add("power_parameters", "Not text.")
		return
	}
	n.PowerParameters = raw
}

func unknownParams(names []string) string {
	return "Unknown parameter(s): " + strings.Join(names, ", ") + "."
}

// powerParams are the stored power parameters. They hold secrets.
func powerParams(n *storage.Node) map[string]string {
	out := map[string]string{}
	var loose map[string]any
	if json.Unmarshal(n.PowerParameters, &loose) != nil {
		return out
	}
	for k, v := range loose {
		switch v := v.(type) {
		case string:
			out[k] = v
		case nil:
		case []any:
			var parts []string
			for _, p := range v {
				parts = append(parts, fmt.Sprint(p))
			}
			out[k] = strings.Join(parts, ",")
		default:
			out[k] = fmt.Sprint(v)
		}
	}
	return out
}

// ParsePowerParameters reads the JSON form of power parameters, as enlistment and the signals send it.
func ParsePowerParameters(text string) (map[string]string, bool) {
	if strings.TrimSpace(text) == "" {
		return nil, true
	}
	var loose map[string]any
	if json.Unmarshal([]byte(text), &loose) != nil {
		return nil, false
	}
	return powerParams(&storage.Node{PowerParameters: json.RawMessage(text)}), true
}

// NormalMAC is a MAC address as it is stored: lower case with colons. It takes colons, dashes, dots and nothing between the digits.
func NormalMAC(text string) (string, bool) {
	text = strings.TrimSpace(text)
	if len(text) == 12 && !strings.ContainsAny(text, ":-.") {
		text = text[0:4] + "." + text[4:8] + "." + text[8:12]
	}
	hw, err := net.ParseMAC(text)
	if err != nil || len(hw) != 6 {
		return "", false
	}
	return hw.String(), true
}

func parseMACs(given []string) ([]string, fieldErrors) {
	fields := fieldErrors{}
	var macs []string
	for _, g := range given {
		for _, part := range strings.Split(g, ",") {
			if strings.TrimSpace(part) == "" {
				continue
			}
			mac, ok := NormalMAC(part)
			if !ok {
				fields.add("mac_addresses", fmt.Sprintf("One or more MAC addresses is invalid. ('%s' is not a valid MAC address.)", part))
			} else if !slices.Contains(macs, mac) {
				macs = append(macs, mac)
			}
		}
	}
	return macs, fields
}

// spelling finds an address among texts that parseMACs has read.
func spelling(typed []string, mac string) string {
	for _, t := range typed {
		for part := range strings.SplitSeq(t, ",") {
			if m, ok := NormalMAC(part); ok && m == mac {
				return strings.TrimSpace(part)
			}
		}
	}
	return ""
}

// parseSize reads bytes, or an integer with one of the suffixes, which are decimal.
func parseSize(text, suffixes string) (int64, bool) {
	factor := int64(1)
	if text != "" {
		if i := strings.IndexByte(suffixes, text[len(text)-1]&^0x20); i >= 0 && text[len(text)-1] > '9' {
			for range i + 1 {
				factor *= 1000
			}
			text = text[:len(text)-1]
		}
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil || v < 0 || v > math.MaxInt64/factor {
		return 0, false
	}
	return v * factor, true
}

// parseMemory reads MiB, or a size with a suffix (binary, as memory is).
func parseMemory(text string) (int64, bool) {
	if v, err := strconv.ParseInt(text, 10, 64); err == nil {
		return v, v >= 0 && v < 1<<40
	}
	for i, suffix := range []string{"M", "G", "T"} {
		if num, ok := strings.CutSuffix(strings.ToUpper(text), suffix); ok {
			v, err := strconv.ParseInt(num, 10, 64)
			return v << (10 * i), err == nil && v >= 0 && v < 1<<20
		}
	}
	return 0, false
}

// UpdateMachine changes a machine as an administrator.
func (s *Service) UpdateMachine(ctx context.Context, systemID string, spec MachineSpec) (*storage.Bundle, error) {
	return s.changeMachine(ctx, systemID, permAdmin, func(tx *storage.Tx, n *storage.Node) error {
		fields := fieldErrors{}
		if err := s.applySpec(tx, n, spec, fields, false); err != nil {
			return err
		}
		if err := fields.err(); err != nil {
			return err
		}
		if err := s.touchRevision(tx, n); err != nil {
			return err
		}
		return tx.UpdateNode(n)
	})
}

// DeleteMachine removes a machine. What it was doing ends with it.
func (s *Service) DeleteMachine(ctx context.Context, systemID string, force bool) error {
	return s.write(ctx, func(tx *storage.Tx) error {
		n, err := s.lockMachine(ctx, tx, systemID, permAdmin)
		if err != nil {
			return err
		}
		return s.deleteNode(tx, n, force)
	})
}

func (s *Service) deleteNode(tx *storage.Tx, n *storage.Node, force bool) error {
	children, err := tx.Nodes(storage.NodeFilter{ParentID: &n.ID})
	if err != nil {
		return err
	}
	if len(children) > 0 && !force {
		return Errorf(Invalid, "%s cannot be removed: it is the parent of %d other node(s).", n.Hostname, len(children))
	}
	if _, err := tx.CancelJobs(n.ID, "power"); err != nil {
		return err
	}
	return tx.DeleteNode(n.ID)
}

// DeleteNode removes a machine or a device by the rules of nodes/.
func (s *Service) DeleteNode(ctx context.Context, systemID string) error {
	return s.write(ctx, func(tx *storage.Tx) error {
		n, err := tx.LockNodeBySystemID(systemID)
		if errors.Is(err, storage.ErrNotFound) {
			return Errorf(NotFound, "No Node matches the given query.")
		}
		if err != nil {
			return err
		}
		if err := checkPerm(ctx, &n, permAdmin); err != nil {
			return err
		}
		return s.deleteNode(tx, &n, false)
	})
}

// Machine reads one machine that the caller may see.
func (s *Service) Machine(ctx context.Context, systemID string) (*storage.Bundle, error) {
	var b *storage.Bundle
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		b, err = s.readMachine(ctx, tx, systemID)
		return err
	})
	return b, err
}

// Node reads one node of whatever type that the caller may see.
func (s *Service) Node(ctx context.Context, systemID string) (*storage.Bundle, error) {
	var b *storage.Bundle
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		b, err = tx.LoadMachine(systemID)
		return err
	})
	if errors.Is(err, storage.ErrNotFound) {
		return nil, Errorf(NotFound, "No Node matches the given query.")
	}
	if err != nil {
		return nil, err
	}
	return b, checkPerm(ctx, &b.Node, permView)
}

func (s *Service) readMachine(ctx context.Context, tx *storage.Tx, systemID string) (*storage.Bundle, error) {
	b, err := tx.LoadMachine(systemID)
	if errors.Is(err, storage.ErrNotFound) || err == nil && b.Node.NodeType != storage.NodeMachine {
		return nil, errNoMachine
	}
	if err != nil {
		return nil, err
	}
	return b, checkPerm(ctx, &b.Node, permView)
}

// PowerParameters are a machine's power parameters, secrets and all, for administrators.
func (s *Service) PowerParameters(ctx context.Context, systemID string) (map[string]string, error) {
	var params map[string]string
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		n, err := tx.Node(systemID)
		if errors.Is(err, storage.ErrNotFound) {
			return errNoMachine
		}
		if err != nil {
			return err
		}
		params = powerParams(&n)
		return checkPerm(ctx, &n, permAdminRead)
	})
	if err != nil {
		return nil, err
	}
	return params, nil
}

// AllPowerParameters are the power parameters of all machines, or of those named.
func (s *Service) AllPowerParameters(ctx context.Context, systemIDs []string) (map[string]map[string]string, error) {
	if a := ActorFrom(ctx); !a.Can("can_edit_machines") {
		return nil, lacks("can_edit_machines")
	}
	out := map[string]map[string]string{}
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		nodes, err := tx.Nodes(storage.NodeFilter{Types: []int64{storage.NodeMachine}, SystemIDs: systemIDs})
		for _, n := range nodes {
			out[n.SystemID] = powerParams(&n)
		}
		return err
	})
	return out, err
}

// IsRegistered tells whether a machine is known by one of its MAC addresses. A machine that asks (anonymously) is told no while it has
// no life yet, so that it goes on enlisting.
func (s *Service) IsRegistered(ctx context.Context, macs string) (bool, error) {
	found := false
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		for _, part := range strings.Split(macs, ",") {
			mac, ok := NormalMAC(part)
			if !ok {
				continue
			}
			n, err := tx.NodeByMAC(mac)
			if errors.Is(err, storage.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			if ActorFrom(ctx).Anonymous && in(n.Status, storage.StatusNew, storage.StatusCommissioning, storage.StatusRetired) {
				continue
			}
			found = true
		}
		return nil
	})
	return found, err
}

// SetZone moves nodes to a zone.
func (s *Service) SetZone(ctx context.Context, zone string, systemIDs []string) error {
	return s.write(ctx, func(tx *storage.Tx) error {
		z, err := tx.ZoneByName(zone)
		if errors.Is(err, storage.ErrNotFound) {
			return FieldError("zone", "Select a valid choice. That choice is not one of the available choices.")
		}
		if err != nil {
			return err
		}
		for _, id := range slices.Sorted(slices.Values(systemIDs)) {
			n, err := tx.LockNodeBySystemID(id)
			if errors.Is(err, storage.ErrNotFound) || err == nil && !mayNode(ActorFrom(ctx), &n, permAdmin) {
				return FieldError("nodes", "Select a valid choice. %s is not one of the available choices.", id)
			}
			if err != nil {
				return err
			}
			n.ZoneID = z.ID
			if err := tx.UpdateNode(&n); err != nil {
				return err
			}
		}
		return nil
	})
}
