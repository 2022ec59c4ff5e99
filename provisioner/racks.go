package provisioner

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/storage"
)

// The bounds of what a rack may say of itself.
const (
	maxRackInterfaces = 256
	rackSeenEvery     = 10 * time.Second // last_seen is not written more often
)

var rackHostname = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// RegisterRack makes a rack controller known, or known again: a rack is who it is by its host name, and whoever calls has
// checked that it may be. fingerprint is its certificate's; the one before, if any, is no longer accepted. nodeType is
// storage.NodeRack, or storage.NodeRegionRack for the rack inside a region.
func (s *Service) RegisterRack(ctx context.Context, h api.RackHello, nodeType int64, fingerprint string) (storage.Node, error) {
	if nodeType != storage.NodeRack && nodeType != storage.NodeRegionRack {
		return storage.Node{}, Errorf(Invalid, "A rack is registered as node type %d or %d.", storage.NodeRack, storage.NodeRegionRack)
	}
	return s.registerController(ctx, h, nodeType, fingerprint)
}

// RegisterRegion makes the region controller known that runs this program without a rack.
func (s *Service) RegisterRegion(ctx context.Context, h api.RackHello) (storage.Node, error) {
	return s.registerController(ctx, h, storage.NodeRegion, "")
}

func (s *Service) registerController(ctx context.Context, h api.RackHello, nodeType int64, fingerprint string) (storage.Node, error) {
	if err := checkHello(&h); err != nil {
		return storage.Node{}, err
	}
	var out storage.Node
	err := s.DB.Write(ctx, func(tx *storage.Tx) error {
		domain, err := tx.DefaultDomain()
		if err != nil {
			return err
		}
		n, err := tx.NodeByHostname(h.Hostname)
		switch {
		case errors.Is(err, storage.ErrNotFound):
			n = storage.Node{SystemID: newControllerID(), NodeType: nodeType, Hostname: h.Hostname, DomainID: domain.ID,
				ZoneID: storage.DefaultZoneID, PowerState: "unknown", LastSeen: tx.Now(), CertFingerprint: fingerprint, Status: storage.StatusDeployed}
			helloFields(&n, h)
			if err := tx.InsertNode(&n); err != nil {
				return err
			}
		case err != nil:
			return err
		case n.NodeType != storage.NodeRack && n.NodeType != storage.NodeRegion && n.NodeType != storage.NodeRegionRack:
			return Errorf(Conflict, "The host name %s is that of a machine or device.", h.Hostname)
		default:
			if n, err = tx.LockNode(n.ID); err != nil {
				return err
			}
			n.LastSeen = tx.Now()
			if nodeType != storage.NodeRegion {
				n.CertFingerprint = fingerprint
			}
			if n.NodeType != nodeType {
				n.NodeType = storage.NodeRegionRack // a region and a rack of one host name are one controller
			}
			helloFields(&n, h)
			if err := tx.UpdateNode(&n); err != nil {
				return err
			}
		}
		if err := s.applyHello(tx, &n, h); err != nil {
			return err
		}
		out = n
		return nil
	})
	return out, err
}

// RackHello takes in what a rack says of itself.
func (s *Service) RackHello(ctx context.Context, systemID string, h api.RackHello) error {
	if err := checkHello(&h); err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		n, err := tx.LockNodeBySystemID(systemID)
		if err != nil {
			return err
		}
		before := n
		helloFields(&n, h)
		n.LastSeen = tx.Now()
		n.Hostname = before.Hostname // a rack is renamed through the API, or by enrolling anew
		if err := tx.UpdateNode(&n); err != nil {
			return err
		}
		return s.applyHello(tx, &n, h)
	})
}

func helloFields(n *storage.Node, h api.RackHello) {
	n.Version, n.RackURL = h.Version, h.URL
	if h.Architecture != "" {
		n.Architecture = h.Architecture + "/generic"
	}
}

func checkHello(h *api.RackHello) error {
	h.Hostname, _, _ = strings.Cut(strings.ToLower(h.Hostname), ".")
	switch {
	case !rackHostname.MatchString(h.Hostname):
		return FieldError("hostname", "A rack's host name has letters, digits and dashes.")
	case len(h.Version) > 100 || len(h.Architecture) > 30 || len(h.URL) > 300:
		return Errorf(Invalid, "The rack's version, architecture or URL is too long.")
	case len(h.Interfaces) > maxRackInterfaces:
		return FieldError("interfaces", "A rack has at most %d interfaces.", maxRackInterfaces)
	}
	for _, i := range h.Interfaces {
		if i.Name == "" || len(i.Name) > 64 || len(i.Addresses) > maxRackInterfaces {
			return FieldError("interfaces", "An interface has a name of at most 64 letters, and at most %d addresses.", maxRackInterfaces)
		}
		for _, a := range i.Addresses {
			if _, err := netip.ParsePrefix(a); err != nil {
				return FieldError("interfaces", "An interface's address looks like 10.0.0.2/24.")
			}
		}
	}
	return nil
}

// applyHello writes down the VLANs that the rack serves.
func (s *Service) applyHello(tx *storage.Tx, n *storage.Node, h api.RackHello) error {
	if n.NodeType == storage.NodeRegion {
		return nil
	}
	id := n.SystemID
	tx.AfterCommit(func() { s.rackHellos.Store(id, h) })
	subnets, err := tx.Subnets()
	if err != nil {
		return err
	}
	changed, err := tx.SetRackVLANs(n.ID, servedVLANs(n.ID, h, subnets))
	if err != nil || !changed {
		return err
	}
	// The rack's own snapshot has other subnets now, and those of other racks another reserved address.
	_, err = tx.Revision()
	return err
}

// refreshRackVLANs looks again which VLANs a rack serves when subnets have changed since it said hello.
func (s *Service) refreshRackVLANs(ctx context.Context, systemID string) error {
	v, ok := s.rackHellos.Load(systemID)
	if !ok {
		return nil // it has not said hello to this process, and will
	}
	h := v.(api.RackHello)
	same := false
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		n, err := tx.Node(systemID)
		if err != nil {
			return err
		}
		subnets, err := tx.Subnets()
		if err != nil {
			return err
		}
		old, err := tx.RackVLANs([]int64{n.ID})
		same = slices.Equal(old, servedVLANs(n.ID, h, subnets))
		return err
	})
	if err != nil || same {
		return err
	}
	return s.RackHello(ctx, systemID, h)
}

// servedVLANs finds the VLANs that a rack serves: those whose subnets its addresses are in.
func servedVLANs(rackID int64, h api.RackHello, subnets []storage.Subnet) []storage.RackVLAN {
	found := map[int64]storage.RackVLAN{}
	for _, i := range h.Interfaces {
		for _, text := range i.Addresses {
			p, err := netip.ParsePrefix(text)
			if err != nil {
				continue
			}
			a := p.Addr().Unmap().WithZone("")
			for _, sn := range subnets {
				if _, taken := found[sn.VLANID]; taken || sn.FirstIP.Is4() != a.Is4() || a.Less(sn.FirstIP) || sn.LastIP.Less(a) {
					continue
				}
				found[sn.VLANID] = storage.RackVLAN{RackID: rackID, VLANID: sn.VLANID, Interface: i.Name, Address: a.String()}
			}
		}
	}
	vlans := make([]storage.RackVLAN, 0, len(found))
	for _, v := range found {
		vlans = append(vlans, v)
	}
	slices.SortFunc(vlans, func(a, b storage.RackVLAN) int { return cmp.Compare(a.VLANID, b.VLANID) })
	return vlans
}

// RackByCertificate returns the rack whose certificate has this fingerprint, and notes that it was heard of. A rack that was
// deleted, or enrolled again with another key, is not found.
func (s *Service) RackByCertificate(ctx context.Context, fingerprint string) (storage.Node, error) {
	var n storage.Node
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		n, err = tx.RackByFingerprint(fingerprint)
		return err
	})
	if err != nil {
		return n, err
	}
	return n, s.touchRack(ctx, n)
}

// RackByID is RackByCertificate for the rack inside a region.
func (s *Service) RackByID(ctx context.Context, systemID string) (storage.Node, error) {
	var n storage.Node
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		n, err = tx.Node(systemID)
		return err
	})
	if err == nil && n.NodeType != storage.NodeRack && n.NodeType != storage.NodeRegionRack {
		err = storage.ErrNotFound
	}
	if err != nil {
		return n, err
	}
	return n, s.touchRack(ctx, n)
}

func (s *Service) touchRack(ctx context.Context, n storage.Node) error {
	now := s.DB.Now()
	if now.Sub(n.LastSeen) < rackSeenEvery {
		return nil
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error { return tx.TouchRack(n.ID, tx.Now().Add(-rackSeenEvery)) })
}

// newControllerID makes a system_id of the six letters that MAAS uses.
func newControllerID() string {
	const letters = "34678abcdefghkmnpqrstwxy"
	var raw [6]byte
	rand.Read(raw[:]) // never fails
	for i, b := range raw {
		raw[i] = letters[int(b)%len(letters)]
	}
	return string(raw[:])
}

// The lease of a job that a rack claims, and the bound of a whole power action.
const (
	rackJobLease = 30 * time.Second
	powerTimeout = 5 * time.Minute
)

// rackQueues are the queues that a rack takes work from: those of the VLANs that it serves, and that of any rack.
func rackQueues(tx *storage.Tx, rackID int64) ([]string, error) {
	vlans, err := tx.RackVLANs([]int64{rackID})
	if err != nil {
		return nil, err
	}
	queues := []string{"rack", rackQueue(rackID)}
	for _, v := range vlans {
		queues = append(queues, fmt.Sprintf("vlan:%d", v.VLANID))
	}
	return queues, nil
}

// ClaimRackJobs leases due jobs to a rack and adds what it needs to do them. It returns the revision at which that was: a rack that
// has seen it knows what the job's machine is to boot.
func (s *Service) ClaimRackJobs(ctx context.Context, rackSystemID string, limit int) ([]api.RackJob, int64, error) {
	var due bool
	var rack storage.Node
	var revision int64
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		var err error
		if rack, err = tx.Node(rackSystemID); err != nil {
			return err
		}
		queues, err := rackQueues(tx, rack.ID)
		if err != nil {
			return err
		}
		if revision, err = tx.CurrentRevision(); err != nil {
			return err
		}
		due, err = tx.HasDueJobs(queues)
		return err
	})
	if err != nil || !due {
		return nil, revision, err
	}
	var out []api.RackJob
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		out = nil
		if err := s.endLostJobs(tx); err != nil {
			return err
		}
		queues, err := rackQueues(tx, rack.ID)
		if err != nil {
			return err
		}
		if revision, err = tx.CurrentRevision(); err != nil {
			return err
		}
		jobs, err := tx.ClaimJobs(queues, rackSystemID, limit, rackJobLease)
		if err != nil {
			return err
		}
		for _, j := range jobs {
			if j.Kind == api.JobImages {
				out = append(out, api.RackJob{ID: j.ID, Kind: j.Kind, Attempt: j.Attempt, LeaseSeconds: int(rackJobLease / time.Second), Images: &api.ImagesOrder{}})
				continue
			}
			if j.Kind == api.JobScan {
				scan, err := scanOrder(j)
				if err != nil {
					return err
				}
				out = append(out, api.RackJob{ID: j.ID, Kind: j.Kind, Attempt: j.Attempt, LeaseSeconds: int(rackJobLease / time.Second), Scan: scan})
				continue
			}
			order, refusal, err := s.powerOrder(tx, j)
			if err != nil {
				return err
			}
			if refusal != "" {
				if err := s.finishJob(tx, j.ID, j.Attempt, api.PowerResult{State: "unknown", Error: refusal, Final: true}); err != nil {
					return err
				}
				continue
			}
			out = append(out, api.RackJob{ID: j.ID, Kind: j.Kind, Attempt: j.Attempt, LeaseSeconds: int(rackJobLease / time.Second), Power: order})
		}
		return nil
	})
	return out, revision, err
}

// powerOrder completes a power job with the driver and its parameters, or says why there is nothing to carry out.
func (s *Service) powerOrder(tx *storage.Tx, j storage.Job) (*api.PowerOrder, string, error) {
	if j.Kind != api.JobPower {
		return nil, fmt.Sprintf("no rack knows jobs of kind %q", j.Kind), nil
	}
	var args PowerArgs
	if err := json.Unmarshal(j.Args, &args); err != nil {
		return nil, "the job's arguments cannot be read", nil
	}
	n, err := tx.Node(args.SystemID)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, "the machine no longer exists", nil
	}
	if err != nil {
		return nil, "", err
	}
	if n.PowerType == "" {
		return nil, "Missing or invalid power setting: the machine has no power type", nil
	}
	var raw map[string]any
	if err := json.Unmarshal(n.PowerParameters, &raw); err != nil {
		return nil, "Missing or invalid power setting: the power parameters cannot be read", nil
	}
	p := map[string]string{}
	for k, v := range raw {
		p[k] = paramText(v)
	}
	p["system_id"] = n.SystemID
	if args.Soft {
		p["power_off_mode"] = "soft"
	}
	return &api.PowerOrder{SystemID: n.SystemID, Action: args.Action, Driver: n.PowerType, Parameters: p, TimeoutSeconds: int(powerTimeout / time.Second)}, "", nil
}

// paramText is a power parameter as drivers take it; lists, which multiple choices are, are joined by commas.
func paramText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case []any:
		parts := make([]string, 0, len(v))
		for _, x := range v {
			parts = append(parts, paramText(x))
		}
		return strings.Join(parts, ",")
	}
	return fmt.Sprint(v)
}

// HeartbeatRackJob prolongs the lease of an attempt that the rack holds; storage.ErrStale when it does not.
func (s *Service) HeartbeatRackJob(ctx context.Context, rackSystemID string, id, attempt int64) (time.Duration, error) {
	return rackJobLease, s.DB.Write(ctx, func(tx *storage.Tx) error {
		if err := s.holds(tx, rackSystemID, id, attempt); err != nil {
			return err
		}
		return tx.HeartbeatJob(id, attempt, rackJobLease)
	})
}

// holds answers storage.ErrStale unless the rack holds this attempt: a rack speaks for its own jobs only.
func (s *Service) holds(tx *storage.Tx, rackSystemID string, id, attempt int64) error {
	j, err := tx.Job(id)
	if errors.Is(err, storage.ErrNotFound) || err == nil && (j.Worker != rackSystemID || j.Attempt != attempt || j.State != storage.JobRunning) {
		return storage.ErrStale
	}
	return err
}

// FinishRackJob records the end of an attempt that the rack holds, and what it means for the machine, in one transaction;
// storage.ErrStale when the rack does not hold it: the lease ran out and somebody else has it, or the job was called off.
func (s *Service) FinishRackJob(ctx context.Context, rackSystemID string, id int64, r api.JobResult) error {
	if r.Scan != nil {
		return s.DB.Write(WithActor(ctx, SystemActor()), func(tx *storage.Tx) error {
			if err := s.holds(tx, rackSystemID, id, r.Attempt); err != nil {
				return err
			}
			j, err := tx.Job(id)
			if err != nil {
				return err
			}
			if j.Kind != api.JobScan {
				return Errorf(Invalid, "The job is no scan.")
			}
			return s.finishScan(tx, j, rackSystemID, r.Attempt, *r.Scan)
		})
	}
	if r.Images != nil {
		return s.finishImages(ctx, rackSystemID, id, r.Attempt, *r.Images)
	}
	if r.Power == nil {
		return Errorf(Invalid, "A result without its power part.")
	}
	res := *r.Power
	switch res.State {
	case "on", "off", "unknown", "error":
	default:
		return Errorf(Invalid, "A power state is on, off, unknown or error.")
	}
	if len(res.Error) > 2000 {
		res.Error = res.Error[:2000]
	}
	return s.DB.Write(WithActor(ctx, SystemActor()), func(tx *storage.Tx) error {
		if err := s.holds(tx, rackSystemID, id, r.Attempt); err != nil {
			return err
		}
		return s.finishJob(tx, id, r.Attempt, res)
	})
}

// finishJob ends an attempt. Only the last one's failure is the machine's.
func (s *Service) finishJob(tx *storage.Tx, id, attempt int64, r api.PowerResult) error {
	state := storage.JobDone
	if r.Error != "" {
		state = storage.JobRetry
		if r.Final {
			state = storage.JobFailed
		}
	}
	doc, err := json.Marshal(r)
	if err != nil {
		return err
	}
	j, err := tx.FinishJob(id, attempt, state, doc, r.Error)
	if err != nil {
		return err
	}
	if j.Kind != api.JobPower || (j.State != storage.JobDone && j.State != storage.JobFailed) {
		return nil
	}
	return s.PowerResult(tx, j, r)
}

// endLostJobs fails the jobs whose last attempt was lost with its worker, as if that had reported the failure.
func (s *Service) endLostJobs(tx *storage.Tx) error {
	lost, err := tx.LostJobs()
	if err != nil {
		return err
	}
	for _, j := range lost {
		if j.Kind == api.JobScan || j.Kind == api.JobImages {
			if _, err := tx.FinishJob(j.ID, j.Attempt, storage.JobFailed, nil, "the rack that was at it was lost"); err != nil && !errors.Is(err, storage.ErrStale) {
				return err
			}
			continue
		}
		if j.Kind != api.JobPower {
			continue // the region's own: its runner ends those
		}
		r := api.PowerResult{State: "unknown", Error: "Failed talking to node's BMC: the rack that was at it was lost", Final: true}
		if err := s.finishJob(tx, j.ID, j.Attempt, r); err != nil && !errors.Is(err, storage.ErrStale) {
			return err
		}
	}
	return nil
}

// EndLostJobs is endLostJobs on its own: where no rack is left to claim, nobody else would notice.
func (s *Service) EndLostJobs(ctx context.Context) error {
	var lost []storage.Job
	if err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		lost, err = tx.LostJobs()
		return err
	}); err != nil || len(lost) == 0 {
		return err
	}
	return s.DB.Write(WithActor(ctx, SystemActor()), s.endLostJobs)
}

var (
	errNoRack   = Errorf(NotFound, "No RackController matches the given query.")
	errNoRegion = Errorf(NotFound, "No RegionController matches the given query.")
)

// Controller returns a controller of one of the types with all that belongs to it.
func (s *Service) Controller(ctx context.Context, systemID string, types ...int64) (*storage.Bundle, error) {
	if _, err := needUser(ctx); err != nil {
		return nil, err
	}
	var b *storage.Bundle
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		b, err = tx.LoadMachine(systemID)
		return err
	})
	if errors.Is(err, storage.ErrNotFound) || err == nil && !slices.Contains(types, b.Node.NodeType) {
		if slices.Contains(types, storage.NodeRack) {
			return nil, errNoRack
		}
		return nil, errNoRegion
	}
	return b, err
}

// RackAddresses returns the addresses at which racks serve their VLANs, by node id.
func (s *Service) RackAddresses(ctx context.Context) (map[int64][]string, error) {
	out := map[int64][]string{}
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		all, err := tx.RackVLANs(nil)
		for _, v := range all {
			out[v.RackID] = append(out[v.RackID], v.Address)
		}
		return err
	})
	return out, err
}

// DeleteRack forgets a rack controller: its certificate is no longer accepted. One that VLANs name as their rack goes only by force;
// the VLANs then have none.
func (s *Service) DeleteRack(ctx context.Context, systemID string, force bool) error {
	if _, err := needAdmin(ctx); err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		n, err := tx.LockNodeBySystemID(systemID)
		if errors.Is(err, storage.ErrNotFound) || err == nil && n.NodeType != storage.NodeRack && n.NodeType != storage.NodeRegionRack {
			return errNoRack
		}
		if err != nil {
			return err
		}
		if n.NodeType == storage.NodeRegionRack {
			return Errorf(Invalid, "The rack of a running region cannot be deleted.")
		}
		vlans, err := tx.VLANs()
		if err != nil {
			return err
		}
		is := func(id *int64) bool { return id != nil && *id == n.ID }
		for i := range vlans {
			v := &vlans[i]
			if !is(v.PrimaryRackID) && !is(v.SecondaryRackID) {
				continue
			}
			if !force {
				return Errorf(Invalid, "Rack controller %s serves DHCP on VLANs; give them another rack first, or delete it by force.", n.Hostname)
			}
			if is(v.PrimaryRackID) {
				v.PrimaryRackID = v.SecondaryRackID
			}
			v.SecondaryRackID = nil // it was this one, or has become the first
			v.DhcpOn = v.DhcpOn && v.PrimaryRackID != nil
			if err := tx.UpdateVLAN(v); err != nil {
				return err
			}
		}
		s.rackHellos.Delete(systemID)
		return tx.DeleteNode(n.ID)
	})
}
