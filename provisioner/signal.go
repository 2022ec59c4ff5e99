package provisioner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ingot-metal/ingot/storage"
)

// Signal is what a machine says of itself through op=signal.
type Signal struct {
	Status          string
	Error           string
	Name            string // of a script
	ScriptResultID  int64
	ExitStatus      *int64
	PowerType       string
	PowerParameters string            // JSON
	Files           map[string][]byte // by name: <script>, <script>.out, .err, .yaml

	tags []tagVerdict // what the definitions of tags say of the machine
}

var signalStatuses = []string{"OK", "FAILED", "WORKING", "COMMISSIONING", "TESTING", "TIMEDOUT", "INSTALLING", "APPLYING_NETCONF", "RELEASING", "DEPLOYING"}

// maxOutput bounds what of one stream of a script is kept.
const maxOutput = 1 << 20

// Signal takes a machine's word. The machine is known by its credentials, so it speaks for itself only.
func (s *Service) Signal(ctx context.Context, nodeID int64, sig Signal) error {
	if !slices.Contains(signalStatuses, sig.Status) {
		return Errorf(Invalid, "Unknown commissioning status: '%s'", clip(sig.Status))
	}
	ctx = WithActor(ctx, SystemActor())
	if sig.Status == "OK" || sig.Status == "TESTING" { // the end of a commissioning, perhaps
		var err error
		if sig.tags, err = s.tagVerdicts(ctx, nodeID); err != nil {
			return err
		}
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		n, err := tx.LockNode(nodeID)
		if err != nil {
			return err
		}
		return s.signal(tx, &n, sig)
	})
}

func (s *Service) signal(tx *storage.Tx, n *storage.Node, sig Signal) error {
	switch n.Status {
	case storage.StatusNew:
		if sig.Status != "COMMISSIONING" {
			return nil
		}
		return s.beginEnlistCommissioning(tx, n)
	case storage.StatusCommissioning, storage.StatusTesting, storage.StatusDeploying, storage.StatusDeployed, storage.StatusDiskErasing,
		storage.StatusReleasing, storage.StatusEnteringRescueMode, storage.StatusRescueMode:
	case storage.StatusBroken, storage.StatusFailedCommissioning, storage.StatusFailedDeployment, storage.StatusReady, storage.StatusFailedEnteringRescue,
		storage.StatusFailedTesting, storage.StatusFailedDiskErasing, storage.StatusFailedReleasing:
		return nil
	default:
		return Errorf(Conflict, "Machine wasn't commissioning or installing (status is %s)", n.Status)
	}
	if err := s.renewDeadline(tx, n); err != nil {
		return err
	}
	if err := s.storeResults(tx, n, sig); err != nil {
		return err
	}
	if n.Status == storage.StatusDeployed && n.EnableHWSync && sig.Name == InventoryScript {
		if err := tx.SetNodeMetadata(n.ID, map[string]string{metaLastSync: tx.Now().Format(time.RFC3339)}); err != nil {
			return err
		}
	}
	switch n.Status {
	case storage.StatusCommissioning:
		return s.signalCommissioning(tx, n, sig)
	case storage.StatusTesting:
		return s.signalTesting(tx, n, sig)
	case storage.StatusDeploying:
		return s.signalDeploying(tx, n, sig)
	case storage.StatusDiskErasing:
		switch sig.Status {
		case "OK":
			return s.erased(tx, n)
		case "FAILED":
			return s.failSignal(tx, n, sig)
		}
	case storage.StatusReleasing:
		if sig.Status == "FAILED" {
			return s.failSignal(tx, n, sig)
		}
	case storage.StatusEnteringRescueMode:
		switch sig.Status {
		case "OK", "WORKING":
			if err := s.transition(tx, n, storage.StatusRescueMode, transitionOpts{change: func(n *storage.Node) { n.Error = sig.Error }}); err != nil {
				return err
			}
			return s.nodeEvent(tx, n, evRescueMode, "")
		case "FAILED":
			return s.failSignal(tx, n, sig)
		}
	}
	return nil
}

func (s *Service) failSignal(tx *storage.Tx, n *storage.Node, sig Signal) error {
	reason := clip(sig.Error)
	if reason == "" {
		reason = fmt.Sprintf("The machine reported that %s failed.", strings.ToLower(n.Status.String()))
	}
	return s.fail(tx, n, reason)
}

func (s *Service) signalCommissioning(tx *storage.Tx, n *storage.Node, sig Signal) error {
	if sig.PowerType != "" && !hasFlag(n, flagSkipBMC) {
		if err := s.detectedPower(tx, n, sig); err != nil {
			return err
		}
	}
	switch sig.Status {
	case "FAILED":
		return s.failSignal(tx, n, sig)
	case "OK", "TESTING":
	default:
		return nil
	}
	problem, err := s.commissioned(tx, n)
	if err != nil {
		return err
	}
	if problem != "" {
		return s.fail(tx, n, problem)
	}
	if err := s.applyVerdicts(tx, n, sig.tags); err != nil {
		return err
	}
	if sig.Status == "TESTING" { // the same boot goes on into tests
		if err := s.transition(tx, n, storage.StatusTesting, transitionOpts{change: func(n *storage.Node) { n.Error = clip(sig.Error) }}); err != nil {
			return err
		}
		return s.nodeEvent(tx, n, evTesting, "")
	}
	if set, err := tx.CurrentScriptSet(n.ID, storage.SetTesting); err == nil { // the machine says that all is over
		if err := tx.EndScriptSet(set.ID, storage.ScriptAborted); err != nil {
			return err
		}
	} else if !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	to, ev := storage.StatusReady, evReady
	if n.Enlisting {
		to, ev = storage.StatusNew, evNew
	}
	if err := s.transition(tx, n, to, transitionOpts{change: func(n *storage.Node) {
		n.Enlisting, n.Error, n.ErrorDescription, n.CommissionFlags = false, clip(sig.Error), "", ""
	}}); err != nil {
		return err
	}
	return s.nodeEvent(tx, n, ev, "")
}

func (s *Service) signalTesting(tx *storage.Tx, n *storage.Node, sig Signal) error {
	switch sig.Status {
	case "FAILED":
		return s.failSignal(tx, n, sig)
	case "OK":
	default:
		return nil
	}
	problem, err := s.tested(tx, n)
	if err != nil {
		return err
	}
	if problem != "" {
		return s.fail(tx, n, problem)
	}
	to := n.PreviousStatus
	switch {
	case n.Enlisting || to == storage.StatusFailedCommissioning:
		to = storage.StatusNew
	case !in(to, storage.StatusReady, storage.StatusReserved, storage.StatusAllocated, storage.StatusDeployed):
		to = storage.StatusReady
	}
	if err := s.transition(tx, n, to, transitionOpts{change: func(n *storage.Node) {
		n.Enlisting, n.Error, n.CommissionFlags = false, clip(sig.Error), ""
	}}); err != nil {
		return err
	}
	switch to {
	case storage.StatusNew:
		return s.nodeEvent(tx, n, evNew, "")
	case storage.StatusReady:
		return s.nodeEvent(tx, n, evReady, "")
	}
	return nil
}

func (s *Service) signalDeploying(tx *storage.Tx, n *storage.Node, sig Signal) error {
	switch sig.Status {
	case "FAILED":
		if err := s.failSignal(tx, n, sig); err != nil {
			return err
		}
		return nil
	case "OK":
		// The installation is over, and the next boot is the disk's: the machine may not have got around to saying so.
		if n.Netboot {
			if err := s.netbootOff(tx, n); err != nil {
				return err
			}
		}
		if !n.EphemeralDeploy {
			return tx.EndNodeBoots(n.ID, "ok: installed, the disk is next")
		}
	}
	return nil
}

// erased goes on with a release whose disks are erased.
func (s *Service) erased(tx *storage.Tx, n *storage.Node) error {
	if set, err := tx.CurrentScriptSet(n.ID, storage.SetRelease); err == nil {
		zero := int64(0)
		if err := tx.SaveScriptResult(&storage.ScriptResult{SetID: set.ID, Name: "wipe-disks", Status: storage.ScriptPassed, ExitStatus: &zero, Ended: tx.Now()}); err != nil {
			return err
		}
	} else if !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	if err := s.nodeEvent(tx, n, evDisksErased, ""); err != nil {
		return err
	}
	return s.plainRelease(tx, n, true)
}

// NetbootOff makes the disk the machine's next boot; it says so when it is installed.
func (s *Service) NetbootOff(ctx context.Context, nodeID int64) error {
	return s.setNetboot(ctx, nodeID, false)
}

// NetbootOn makes the network the machine's next boot.
func (s *Service) NetbootOn(ctx context.Context, nodeID int64) error {
	return s.setNetboot(ctx, nodeID, true)
}

func (s *Service) setNetboot(ctx context.Context, nodeID int64, on bool) error {
	return s.DB.Write(WithActor(ctx, SystemActor()), func(tx *storage.Tx) error {
		n, err := tx.LockNode(nodeID)
		if err != nil {
			return err
		}
		if n.Netboot == on {
			return nil
		}
		if !on {
			return s.netbootOff(tx, &n)
		}
		n.Netboot = true
		if err := s.touchRevision(tx, &n); err != nil {
			return err
		}
		return tx.UpdateNode(&n)
	})
}

func (s *Service) netbootOff(tx *storage.Tx, n *storage.Node) error {
	// A machine that is deployed to memory has nothing on its disks to start from.
	n.Netboot = n.EphemeralDeploy
	if err := s.touchRevision(tx, n); err != nil {
		return err
	}
	if err := s.renewDeadline(tx, n); err != nil { // saves n
		return err
	}
	if n.Status != storage.StatusDeploying {
		return nil
	}
	if set, err := tx.CurrentScriptSet(n.ID, storage.SetInstallation); err == nil {
		if r, err := tx.ScriptResult(set.ID, InstallLog); err == nil && r.Status <= storage.ScriptRunning {
			r.Status, r.Ended = storage.ScriptPassed, tx.Now()
			if err := tx.SaveScriptResult(&r); err != nil {
				return err
			}
		}
	}
	if err := s.nodeEvent(tx, n, evInstallFinished, ""); err != nil || n.EphemeralDeploy {
		return err
	}
	return s.nodeEvent(tx, n, evRebooting, "")
}

// UserData is what a machine gets at user-data with its own credentials. kind "none": 404; "user": the user's; "run": the script that
// runs the agent in the ephemeral environment. For an installed system's first boot this is the step from Deploying to Deployed.
func (s *Service) UserData(ctx context.Context, nodeID int64) (kind string, data []byte, err error) {
	err = s.DB.Write(WithActor(ctx, SystemActor()), func(tx *storage.Tx) error {
		kind, data = "run", nil
		n, err := tx.LockNode(nodeID)
		if err != nil {
			return err
		}
		switch n.Status {
		case storage.StatusDeploying:
			if n.Netboot && !n.EphemeralDeploy {
				return nil // the installation environment, whatever tree it asks in
			}
			if err := s.deployed(tx, &n); err != nil {
				return err
			}
		case storage.StatusDeployed:
			if n.EphemeralDeploy { // it runs anew from memory
				if err := tx.EndNodeBoots(n.ID, "ok: started in memory"); err != nil {
					return err
				}
			}
		case storage.StatusCommissioning:
			return s.nodeEvent(tx, &n, evGatheringInfo, "")
		default:
			return nil
		}
		kind, data = "user", n.UserData
		if len(data) == 0 {
			kind = "none"
		}
		return nil
	})
	return kind, data, err
}

func (s *Service) deployed(tx *storage.Tx, n *storage.Node) error {
	if err := s.transition(tx, n, storage.StatusDeployed, transitionOpts{change: func(n *storage.Node) {
		n.PowerState, n.Error, n.ErrorDescription, n.LastPing = "on", "", "", tx.Now()
	}}); err != nil {
		return err
	}
	if err := s.nodeEvent(tx, n, evDeployed, ""); err != nil {
		return err
	}
	return s.nodeEvent(tx, n, evImageDeployed, fmt.Sprintf("deployed %s/%s/%s", n.Osystem, n.DistroSeries, n.Architecture))
}

// detectedPower takes the BMC that a machine found in itself. What speaks redfish is not put back to ipmi, and a type that nobody can drive
// is not stored.
func (s *Service) detectedPower(tx *storage.Tx, n *storage.Node, sig Signal) error {
	params, ok := ParsePowerParameters(sig.PowerParameters)
	if _, known := s.Power[sig.PowerType]; !ok || !known || n.PowerType == "mscm" || n.PowerType == "redfish" && sig.PowerType == "ipmi" {
		return nil
	}
	fields := fieldErrors{}
	s.applyPower(n, MachineSpec{PowerType: &sig.PowerType, PowerParameters: params, SkipPowerCheck: true}, fields)
	if len(fields) > 0 {
		return nil
	}
	return tx.UpdateNode(n)
}

// takeInventory applies an inventory as a whole or not at all; one that cannot be used fails its script, and so the commissioning.
func (s *Service) takeInventory(tx *storage.Tx, n *storage.Node, r *storage.ScriptResult, data []byte) error {
	changed := *n
	err := tx.Savepoint(func() error { return s.applyInventory(tx, &changed, data) })
	if err == nil {
		*n = changed
		return nil
	}
	if tx.Context().Err() != nil {
		return err
	}
	r.Status = storage.ScriptFailed
	s.Log.Warn("inventory refused", "system_id", n.SystemID, "error", err)
	return s.nodeEvent(tx, n, evScriptResultError, clip("Failed processing commissioning data: "+err.Error()))
}

func sortedNames[T any](m map[string]T) []string {
	names := make([]string, 0, len(m))
	for k := range m {
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}

// StatusEvent is an event that cloud-init, curtin or the agent reports.
type StatusEvent struct {
	Type        string // start, progress, finish
	Origin      string
	Name        string
	Description string
	Result      string
	Files       map[string][]byte // decoded, by path
}

// StatusEvent takes an event of the machine that the credentials with this token key belong to. An unknown token is dropped in
// silence, as are events that mean nothing in the machine's state.
func (s *Service) StatusEvent(ctx context.Context, tokenKey string, e StatusEvent) error {
	ctx = WithActor(ctx, SystemActor())
	n, _, err := s.NodeByToken(ctx, tokenKey)
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		n, err := tx.LockNode(n.ID)
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return s.statusEvent(tx, &n, e)
	})
}

func (s *Service) statusEvent(tx *storage.Tx, n *storage.Node, e StatusEvent) error {
	failed := e.Result == "FAIL" || e.Result == "FAILURE"
	text := clip(fmt.Sprintf("'%s' %s", e.Origin, e.Description))
	if e.Type == "start" || failed || e.Type == "progress" {
		t := statusEventType(n.Status, failed, e.Result)
		if err := s.nodeEvent(tx, n, t, text); err != nil {
			return err
		}
	}
	if strings.HasPrefix(e.Name, "erase/") && e.Type == "finish" && n.Status == storage.StatusDiskErasing {
		t := evDiskErased
		if failed {
			t = evDiskEraseFailed
		}
		if err := s.nodeEvent(tx, n, t, clip(e.Description)); err != nil {
			return err
		}
	}
	if e.Type == "start" {
		if t, ok := map[string]evType{"cmd-install/stage-partitioning": evConfiguringStorage, "cmd-install/stage-extract": evInstallingOS,
			"cmd-install/stage-curthooks": evConfiguringOS}[e.Name]; ok && n.Status == storage.StatusDeploying {
			if err := s.nodeEvent(tx, n, t, ""); err != nil {
				return err
			}
		}
	}
	if err := s.renewDeadline(tx, n); err != nil {
		return err
	}
	if len(e.Files) > 0 || e.Name == "cmd-install" && n.Status == storage.StatusDeploying {
		if err := s.storeEventFiles(tx, n, e, failed); err != nil {
			return err
		}
	}
	if e.Type != "finish" || strings.Contains(e.Name, "/") {
		return nil
	}
	switch n.Status {
	case storage.StatusCommissioning, storage.StatusDeploying, storage.StatusDiskErasing, storage.StatusReleasing:
		if failed {
			return s.fail(tx, n, text)
		}
		if n.Status == storage.StatusDiskErasing && e.Name == "modules-final" && s.wiped(tx, n) {
			return s.erased(tx, n)
		}
	}
	return nil
}

// wiped tells whether the wipe has reported success: cloud-init ending its boot does not say so.
func (s *Service) wiped(tx *storage.Tx, n *storage.Node) bool {
	ok, err := tx.SetPassed(n.ID, storage.SetRelease)
	return err == nil && ok
}

func statusEventType(st storage.NodeStatus, failed bool, result string) evType {
	switch st {
	case storage.StatusCommissioning:
		if failed {
			return evCommissionEventFail
		}
		return evCommissioningEvent
	case storage.StatusDeploying:
		if failed {
			return evInstallEventFail
		}
		return evInstallEvent
	case storage.StatusEnteringRescueMode:
		if failed {
			return evRescueEventFail
		}
		return evRescueEvent
	case storage.StatusDeployed:
		if result == "FAIL" {
			return evPostInstallFail
		}
	}
	if failed {
		return evStatusEventFail
	}
	return evStatusEvent
}

func (s *Service) storeEventFiles(tx *storage.Tx, n *storage.Node, e StatusEvent, failed bool) error {
	typ := map[storage.NodeStatus]int64{storage.StatusDeploying: storage.SetInstallation, storage.StatusTesting: storage.SetTesting,
		storage.StatusDiskErasing: storage.SetRelease, storage.StatusReleasing: storage.SetRelease}[n.Status]
	set, err := tx.CurrentScriptSet(n.ID, typ)
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	save := func(name string, change func(r *storage.ScriptResult)) error {
		r, err := tx.ScriptResult(set.ID, name)
		if errors.Is(err, storage.ErrNotFound) {
			r = storage.ScriptResult{SetID: set.ID, Name: name, Started: tx.Now()}
		} else if err != nil {
			return err
		}
		change(&r)
		return tx.SaveScriptResult(&r)
	}
	if n.Status == storage.StatusDeploying && e.Name == "cmd-install" {
		if err := save(InstallLog, func(r *storage.ScriptResult) {
			switch {
			case e.Type == "start":
				r.Status, r.Started = storage.ScriptRunning, tx.Now()
			case e.Type == "finish" && failed:
				r.Status, r.Ended = storage.ScriptFailed, tx.Now()
			case e.Type == "finish":
				r.Status, r.Ended = storage.ScriptPassed, tx.Now()
			}
		}); err != nil {
			return err
		}
	}
	files := sortedNames(e.Files)
	for _, path := range files[:min(len(files), 16)] {
		data := e.Files[path]
		if err := save(clip(path), func(r *storage.ScriptResult) {
			r.Output, r.Ended = data[max(0, len(data)-maxOutput):], tx.Now()
			if r.Status <= storage.ScriptRunning {
				if r.Status = storage.ScriptPassed; failed {
					r.Status = storage.ScriptFailed
				}
			}
		}); err != nil {
			return err
		}
	}
	return nil
}
