package provisioner

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/storage"
)

var (
	evPXERequest       = evType{"NODE_PXE_REQUEST", levelDebug}
	evPerformingPXE    = evType{"PERFORMING_PXE_BOOT", levelInfo}
	evTFTPRequest      = evType{"NODE_TFTP_REQUEST", levelDebug}
	evHTTPRequest      = evType{"NODE_HTTP_REQUEST", levelDebug}
	evLoadingEphemeral = evType{"LOADING_EPHEMERAL", levelInfo}
)

// bootGap is the pause after which a machine's next step belongs to another boot.
const bootGap = 10 * time.Minute

// maxBootText bounds what a machine can write into an event.
const maxBootText = 200

// RecordBoots takes in the steps of network boots that a rack saw: they go on the boot's timeline and into the machine's events,
// and a request for a boot configuration teaches which interface the machine boots from, how, and through which of the rack's
// addresses. A batch that arrives twice changes nothing the second time.
func (s *Service) RecordBoots(ctx context.Context, rackSystemID string, steps []api.BootStep) error {
	if len(steps) == 0 {
		return nil
	}
	return s.DB.Write(WithActor(ctx, SystemActor()), func(tx *storage.Tx) error {
		r := bootRecorder{s: s, tx: tx, rack: rackSystemID, nodes: map[string]*int64{}}
		for _, st := range steps {
			if err := r.record(st); err != nil {
				return err
			}
		}
		return nil
	})
}

type bootRecorder struct {
	s     *Service
	tx    *storage.Tx
	rack  string
	nodes map[string]*int64 // MAC → node id; nil: unknown
}

func (r *bootRecorder) record(st api.BootStep) error {
	mac, err := r.macOf(st)
	if err != nil || mac == "" {
		return err // nobody knows whose step it is
	}
	nodeID, err := r.node(mac)
	if err != nil {
		return err
	}
	st.At = st.At.UTC().Truncate(time.Microsecond)
	if st.At.IsZero() {
		st.At = r.tx.Now()
	}
	fresh, err := r.timeline(mac, nodeID, st)
	if err != nil || !fresh || nodeID == nil {
		return err
	}
	n, err := r.tx.LockNode(*nodeID)
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return r.learn(&n, mac, st)
}

// macOf finds whose step it is: the rack knows the MAC address, or the machine, or only the address that asked.
func (r *bootRecorder) macOf(st api.BootStep) (string, error) {
	if st.MAC != "" {
		return strings.ToLower(st.MAC), nil
	}
	if st.SystemID != "" {
		n, err := r.tx.Node(st.SystemID)
		if err != nil {
			return "", ignoreNotFound(err)
		}
		nics, err := r.tx.InterfacesOf([]int64{n.ID})
		if err != nil {
			return "", err
		}
		for _, i := range nics {
			if i.Type == "physical" && (n.BootInterfaceID == nil || *n.BootInterfaceID == i.ID) {
				return i.MACAddress, nil
			}
		}
	}
	a, err := netip.ParseAddr(st.Client)
	if err != nil {
		return "", nil
	}
	mac, err := r.tx.LeaseMAC(a.Unmap())
	if errors.Is(err, storage.ErrNotFound) {
		mac, err = r.tx.AddressMAC(a.Unmap())
	}
	return mac, ignoreNotFound(err)
}

func (r *bootRecorder) node(mac string) (*int64, error) {
	if id, ok := r.nodes[mac]; ok {
		return id, nil
	}
	n, err := r.tx.NodeByMAC(mac)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		r.nodes[mac] = nil
	case err != nil:
		return nil, err
	default:
		r.nodes[mac] = &n.ID
	}
	return r.nodes[mac], nil
}

// timeline adds the step to the boot, and says whether it was new. A machine that asks DHCP for a loader after it had its boot
// configuration has begun another boot.
func (r *bootRecorder) timeline(mac string, nodeID *int64, st api.BootStep) (bool, error) {
	last, err := r.tx.BootsByMAC(mac, 2)
	if err != nil {
		return false, err
	}
	for i, b := range last {
		steps, err := b.Timeline()
		if err != nil {
			return false, err
		}
		configured := false
		for _, old := range steps {
			if old.Step == st.Kind && old.At.Equal(st.At) {
				return false, nil
			}
			configured = configured || slices.Contains([]string{"boot-config", "kernel", "initrd", "root"}, old.Step)
		}
		if i == 0 && st.Kind == "dhcp-offer" && configured && b.Verdict == "" {
			if err := r.tx.EndBoot(mac, "failed: the machine booted again"); err != nil {
				return false, err
			}
		}
	}
	_, err = r.tx.AddBootSteps(mac, nodeID, r.rack, st.Purpose, bootGap, storage.BootStep{At: st.At, Step: st.Kind, Detail: bootDetail(st)})
	return err == nil, err
}

func bootDetail(st api.BootStep) string {
	var parts []string
	for _, p := range []string{st.Protocol, st.Path, st.Method, st.Detail} {
		if p != "" {
			parts = append(parts, clip(p))
		}
	}
	return strings.Join(parts, " ")
}

// clip makes text of a stranger fit for an event: short, valid, without control characters.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxBootText {
		s = strings.ToValidUTF8(s[:maxBootText], "") + "…"
	}
	return s
}

// learn writes what a step says of a known machine. n is locked.
func (r *bootRecorder) learn(n *storage.Node, mac string, st api.BootStep) error {
	event := func(t evType, text string) error { return r.s.nodeEvent(r.tx, n, t, text) }
	// Steps come some time after they happened. One from before the present status must not become the machine's newest word.
	late := st.At.Before(n.StatusChanged)
	switch st.Kind {
	case "boot-config":
		if err := r.learnBoot(n, mac, st); err != nil {
			return err
		}
		if err := event(evPXERequest, pxeText(n, st.Purpose)); err != nil {
			return err
		}
		if st.Purpose == string(api.PurposeLocal) && n.Status == storage.StatusDeployed {
			// The installed system's business from here on: nobody reports more. The step of the boot that made the machine Deployed may come after
			// that.
			verdict := "ok: started from its disk"
			if late {
				verdict = "ok: deployed"
			}
			if err := r.tx.EndBoot(mac, verdict); err != nil {
				return err
			}
		}
		if late {
			return nil
		}
		return event(evPerformingPXE, "")
	case "loader", "kernel", "initrd", "image", "agent", "root":
		t := evHTTPRequest
		if st.Protocol == "tftp" {
			t = evTFTPRequest
		}
		if err := event(t, clip(st.Path)); err != nil {
			return err
		}
		if st.Kind == "root" && !late {
			return event(evLoadingEphemeral, "")
		}
	}
	return nil
}

// learnBoot stores how the machine boots, and gives it its time again: it is alive.
func (r *bootRecorder) learnBoot(n *storage.Node, mac string, st api.BootStep) error {
	nics, err := r.tx.InterfacesByMAC(mac)
	if err != nil {
		return err
	}
	for i := range nics {
		nic := &nics[i]
		if nic.NodeID != n.ID || nic.Type != "physical" {
			continue
		}
		n.BootInterfaceID = &nic.ID
		// A machine that was plugged in elsewhere is there now. A relay's VLAN says nothing of the machine's port.
		if st.VLANID != 0 && !st.Relayed && (nic.VLANID == nil || *nic.VLANID != st.VLANID) {
			if _, err := r.tx.VLAN(st.VLANID); errors.Is(err, storage.ErrNotFound) {
				break
			} else if err != nil {
				return err
			}
			nic.VLANID = &st.VLANID
			if err := r.tx.UpdateInterface(nic); err != nil {
				return err
			}
			if n.Revision, err = r.tx.Revision(); err != nil {
				return err
			}
		}
		break
	}
	if st.Method != "" {
		method := clip(st.Method)
		n.BIOSBootMethod = &method
	}
	if a, err := netip.ParseAddr(st.Rack); err == nil {
		n.BootRackIP = a.Unmap().WithZone("").String()
	}
	return r.s.renewDeadline(r.tx, n)
}

// pxeText is the text of NODE_PXE_REQUEST.
func pxeText(n *storage.Node, purpose string) string {
	switch api.Purpose(purpose) {
	case api.PurposeInstall:
		return "installation"
	case api.PurposeLocal:
		return "local boot"
	case api.PurposePowerOff:
		return "power off"
	case api.PurposeCommission:
		if n.Status == storage.StatusEnteringRescueMode || n.Status == storage.StatusRescueMode {
			return "rescue mode"
		}
		return "commissioning"
	}
	return clip(purpose)
}

func ignoreNotFound(err error) error {
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	return err
}
