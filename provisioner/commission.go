package provisioner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// InventoryScript is the result that fills the inventory. Its name is MAAS's.
const InventoryScript = "50-maas-01-commissioning"

// CommissionParams are the options of commissioning.
type CommissionParams struct {
	EnableSSH, SkipBMCConfig, SkipNetworking, SkipStorage bool
	CommissioningScripts, TestingScripts                  []string          // names, tags or ids
	ScriptParams                                          map[string]string // <param> or <script>_<param>
}

// The words of Node.CommissionFlags.
const (
	flagEnableSSH      = "enable_ssh"
	flagSkipNetworking = "skip_networking"
	flagSkipStorage    = "skip_storage"
	flagSkipBMC        = "skip_bmc_config"
)

func (p CommissionParams) flags() string {
	var out []string
	for _, f := range []struct {
		on   bool
		name string
	}{{p.EnableSSH, flagEnableSSH}, {p.SkipNetworking, flagSkipNetworking}, {p.SkipStorage, flagSkipStorage}, {p.SkipBMCConfig, flagSkipBMC}} {
		if f.on {
			out = append(out, f.name)
		}
	}
	return strings.Join(out, ",")
}

func hasFlag(n *storage.Node, flag string) bool {
	return slices.Contains(strings.Split(n.CommissionFlags, ","), flag)
}

// Commission inventories a machine anew.
func (s *Service) Commission(ctx context.Context, systemID string, p CommissionParams) (*storage.Bundle, error) {
	return s.changeMachine(ctx, systemID, permAdmin, func(tx *storage.Tx, n *storage.Node) error {
		return s.startCommissioning(ctx, tx, n, p)
	})
}

func (s *Service) startCommissioning(ctx context.Context, tx *storage.Tx, n *storage.Node, p CommissionParams) error {
	if !in(n.Status, storage.StatusNew, storage.StatusFailedCommissioning, storage.StatusReady, storage.StatusBroken) {
		return FieldError("__all__", "Commissioning is not available because of the current state of the node.")
	}
	if err := diskDebt(n); err != nil {
		return err
	}
	if n.PowerType == "" {
		return Errorf(Invalid, "Unconfigured power type. Please set the power type for this machine and try again.")
	}
	nics, err := tx.InterfacesOf([]int64{n.ID})
	if err != nil {
		return err
	}
	if len(nics) == 0 && n.PowerType != "ipmi" {
		return FieldError("__all__", "Commissioning requires a machine with at least one interface.")
	}
	if err := s.userEvent(tx, n, evReqCommission, ""); err != nil {
		return err
	}
	custom, err := s.commissioningStorage(tx, n, p)
	if err != nil {
		return err
	}
	env, err := s.scriptEnvironment(tx, n, custom)
	if err != nil {
		return err
	}
	if err := s.checkCommissioningKernel(tx, n, env); err != nil {
		return err
	}
	a := ActorFrom(ctx)
	if err := s.transition(tx, n, storage.StatusCommissioning, transitionOpts{newBoot: true, change: func(n *storage.Node) {
		n.OwnerID, n.Enlisting, n.Netboot, n.Environment = a.ID(), false, true, env
		n.Error, n.ErrorDescription, n.CommissionFlags = "", "", p.flags()
	}}); err != nil {
		return err
	}
	if err := s.nodeEvent(tx, n, evCommissioning, ""); err != nil {
		return err
	}
	return s.powerUp(tx, n)
}

// commissioningStorage makes the new script sets and clears what the new inventory will fill. It tells whether scripts of users are to run.
func (s *Service) commissioningStorage(tx *storage.Tx, n *storage.Node, p CommissionParams) (custom bool, err error) {
	if err := tx.EndScripts(n.ID, storage.ScriptAborted); err != nil {
		return false, err
	}
	if custom, err = s.commissioningSets(tx, n, p); err != nil {
		return false, err
	}
	if !p.SkipStorage {
		if err := tx.ClearStorageLayout(n.ID); err != nil {
			return false, err
		}
	}
	if p.SkipNetworking {
		return custom, nil
	}
	return custom, tx.RemoveLinks(n.ID, -1)
}

// beginEnlistCommissioning lets a machine that enlists itself go on with its inventory in the same boot. It ends in New.
func (s *Service) beginEnlistCommissioning(tx *storage.Tx, n *storage.Node) error {
	// Tests wait until somebody has accepted the machine, and so do scripts of users without the tag for machines that enlist.
	if _, err := s.commissioningStorage(tx, n, CommissionParams{CommissioningScripts: []string{"enlisting"}, TestingScripts: []string{"none"}}); err != nil {
		return err
	}
	env, err := s.settingText(tx, "ingot_boot_environment", "light")
	if err != nil {
		return err
	}
	if err := s.transition(tx, n, storage.StatusCommissioning, transitionOpts{change: func(n *storage.Node) {
		n.Enlisting, n.PowerState, n.Netboot, n.Environment, n.CommissionFlags = true, "on", true, env, ""
		n.Error, n.ErrorDescription = "", ""
	}}); err != nil {
		return err
	}
	return s.nodeEvent(tx, n, evCommissioning, "")
}

// Accept commissions machines that enlisted themselves; those already on their way are left out of the answer. All or none.
func (s *Service) Accept(ctx context.Context, systemIDs []string) ([]*storage.Bundle, error) {
	a := ActorFrom(ctx)
	if a.Anonymous {
		return nil, Errorf(Unauthorized, "You must be logged in to accept machines.")
	}
	var out []*storage.Bundle
	err := s.write(ctx, func(tx *storage.Tx) error {
		var unknown, denied []string
		var nodes []*storage.Node
		for _, id := range sortedSet(systemIDs) {
			n, err := tx.LockNodeBySystemID(id)
			switch {
			case errors.Is(err, storage.ErrNotFound) || err == nil && n.NodeType != storage.NodeMachine:
				unknown = append(unknown, id)
			case err != nil:
				return err
			case !mayNode(a, &n, permAdmin):
				denied = append(denied, id)
			default:
				nodes = append(nodes, &n)
			}
		}
		if len(unknown) > 0 {
			return Errorf(Invalid, "Unknown machine(s): %s.", strings.Join(unknown, ", "))
		}
		if len(denied) > 0 {
			return Errorf(Forbidden, "You don't have the required permission to accept the following machine(s): %s.", strings.Join(denied, ", "))
		}
		var err error
		out, err = s.acceptNodes(ctx, tx, nodes)
		return err
	})
	return out, err
}

// AcceptAll commissions every New machine that the caller may commission.
func (s *Service) AcceptAll(ctx context.Context) ([]*storage.Bundle, error) {
	a, err := needUser(ctx)
	if err != nil {
		return nil, err
	}
	var out []*storage.Bundle
	err = s.write(ctx, func(tx *storage.Tx) error {
		found, err := tx.Nodes(storage.NodeFilter{Types: []int64{storage.NodeMachine}, Statuses: []storage.NodeStatus{storage.StatusNew}})
		if err != nil {
			return err
		}
		var nodes []*storage.Node
		for _, f := range found {
			n, err := tx.LockNode(f.ID)
			if errors.Is(err, storage.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			if n.Status == storage.StatusNew && n.PowerType != "" && mayNode(a, &n, permAdmin) {
				nodes = append(nodes, &n)
			}
		}
		out, err = s.acceptNodes(ctx, tx, nodes)
		return err
	})
	return out, err
}

func (s *Service) acceptNodes(ctx context.Context, tx *storage.Tx, nodes []*storage.Node) ([]*storage.Bundle, error) {
	ids := []int64{}
	for _, n := range nodes {
		if in(n.Status, storage.StatusCommissioning, storage.StatusReady) {
			continue
		}
		if n.Status != storage.StatusNew {
			return nil, Errorf(Conflict, "Cannot accept node enlistment: node %s is in state %s.", n.SystemID, n.Status)
		}
		if err := s.startCommissioning(ctx, tx, n, CommissionParams{}); err != nil {
			return nil, err
		}
		ids = append(ids, n.ID)
	}
	return tx.LoadMachines(storage.NodeFilter{IDs: ids})
}

func sortedSet(in []string) []string {
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}

// Abort ends what a machine is doing and switches it off.
func (s *Service) Abort(ctx context.Context, systemID, comment string) (*storage.Bundle, error) {
	return s.changeMachine(ctx, systemID, permEdit, func(tx *storage.Tx, n *storage.Node) error {
		var (
			to        storage.NodeStatus
			asked, ev evType
			change    func(n *storage.Node)
		)
		switch n.Status {
		case storage.StatusCommissioning:
			to, asked, ev = storage.StatusNew, evReqAbortCommission, evAbortedCommission
			change = func(n *storage.Node) { n.Enlisting = false }
		case storage.StatusDeploying:
			to, asked, ev = storage.StatusAllocated, evReqAbortDeployment, evAbortedDeployment
			change = func(n *storage.Node) { n.Netboot, n.EphemeralDeploy = true, false }
		case storage.StatusTesting:
			if to = n.PreviousStatus; to == storage.StatusCommissioning {
				to = storage.StatusReady
			}
			asked, ev = evReqAbortTesting, evAbortedTesting
		case storage.StatusDiskErasing:
			to, asked, ev = storage.StatusFailedDiskErasing, evReqAbortErase, evAbortedErase
		default:
			return Errorf(Conflict, "Cannot abort in current state: node %s is in state %s.", n.SystemID, n.Status)
		}
		if err := s.userEvent(tx, n, asked, comment); err != nil {
			return err
		}
		if err := tx.EndScripts(n.ID, storage.ScriptAborted); err != nil {
			return err
		}
		if err := s.transition(tx, n, to, transitionOpts{change: change, unchecked: true}); err != nil {
			return err
		}
		if err := s.nodeEvent(tx, n, ev, ""); err != nil {
			return err
		}
		if !s.queryable(n.PowerType) { // nobody will report that it is off
			return s.releaseAutoAddresses(tx, n.ID)
		}
		return s.powerDown(tx, n)
	})
}

// OverrideFailedTesting puts a machine whose tests failed to use again.
func (s *Service) OverrideFailedTesting(ctx context.Context, systemID, comment string) (*storage.Bundle, error) {
	return s.changeMachine(ctx, systemID, permAdmin, func(tx *storage.Tx, n *storage.Node) error {
		if n.Status != storage.StatusFailedTesting {
			return Errorf(Conflict, "Cannot override the failed tests of node %s: it is in state %s.", n.SystemID, n.Status)
		}
		to := storage.StatusDeployed
		if n.Osystem == "" {
			to = storage.StatusReady
		}
		if err := s.userEvent(tx, n, evReqOverrideTesting, comment); err != nil {
			return err
		}
		return s.transition(tx, n, to, transitionOpts{change: func(n *storage.Node) { n.ErrorDescription = "" }})
	})
}

// diskDebt refuses to go on with a machine whose disks were to be erased and are not.
func diskDebt(n *storage.Node) error {
	if n.Erase == "" {
		return nil
	}
	return Errorf(Conflict, "The disks of node %s are still to be erased: release it again.", n.SystemID)
}

// fail puts a machine into the failed status of what it was doing. In a status that has none this does nothing.
func (s *Service) fail(tx *storage.Tx, n *storage.Node, reason string) error {
	t, ok := transitionals[n.Status]
	if !ok {
		return nil
	}
	if err := tx.EndScripts(n.ID, storage.ScriptAborted); err != nil {
		return err
	}
	ev := map[storage.NodeStatus]evType{storage.StatusFailedCommissioning: evFailedCommissioning, storage.StatusFailedTesting: evFailedTesting,
		storage.StatusFailedExitingRescue: evFailedExitRescue, storage.StatusFailedEnteringRescue: evFailedEnterRescue}[t.recovery]
	if err := s.transition(tx, n, t.recovery, transitionOpts{change: func(n *storage.Node) {
		n.ErrorDescription, n.Error, n.Enlisting = reason, reason, false
	}}); err != nil {
		return err
	}
	if err := s.nodeEvent(tx, n, evFailedSystem, reason); err != nil {
		return err
	}
	if ev.name == "" {
		return nil
	}
	return s.nodeEvent(tx, n, ev, "")
}

// MarkBroken takes a machine out of use, with a reason. Only its owner may.
func (s *Service) MarkBroken(ctx context.Context, systemID, comment string) (*storage.Bundle, error) {
	return s.changeMachine(ctx, systemID, permEdit, func(tx *storage.Tx, n *storage.Node) error {
		if a := ActorFrom(ctx); n.OwnerID == nil || *n.OwnerID != a.User.ID {
			return Errorf(Forbidden, "Only the owner of a machine can mark it broken.")
		}
		if err := s.userEvent(tx, n, evReqBroken, comment); err != nil {
			return err
		}
		if err := tx.EndScripts(n.ID, storage.ScriptAborted); err != nil {
			return err
		}
		wasUp := releasable(n.Status) || transitionals[n.Status].powerOff
		if err := s.transition(tx, n, storage.StatusBroken, transitionOpts{change: func(n *storage.Node) {
			if releasable(n.Status) {
				clearDeployment(n)
			}
			n.ErrorDescription, n.Enlisting = comment, false
		}}); err != nil {
			return err
		}
		if !wasUp {
			return nil
		}
		return s.powerDown(tx, n)
	})
}

// MarkFixed puts a broken machine to use again.
func (s *Service) MarkFixed(ctx context.Context, systemID, comment string) (*storage.Bundle, error) {
	return s.changeMachine(ctx, systemID, permAdmin, func(tx *storage.Tx, n *storage.Node) error {
		if n.Status != storage.StatusBroken {
			return Errorf(Conflict, "Can't mark a non-broken node as 'Ready'.")
		}
		if err := s.userEvent(tx, n, evReqFixed, comment); err != nil {
			return err
		}
		to := storage.StatusReady
		if n.PreviousStatus == storage.StatusDeployed {
			to = storage.StatusDeployed
		}
		return s.transition(tx, n, to, transitionOpts{change: func(n *storage.Node) {
			n.ErrorDescription, n.Osystem, n.DistroSeries, n.HWEKernel = "", "", "", ""
		}})
	})
}

// Lock protects a Deployed or Deploying machine from every change.
func (s *Service) Lock(ctx context.Context, systemID, comment string) (*storage.Bundle, error) {
	return s.changeMachine(ctx, systemID, permLock, func(tx *storage.Tx, n *storage.Node) error {
		if n.Locked {
			return Errorf(Conflict, "Machine is already locked")
		}
		if !in(n.Status, storage.StatusDeployed, storage.StatusDeploying) || n.PoolID == nil {
			return Errorf(Conflict, "Can't lock, machine is not deployed (current state: %s)", n.Status)
		}
		n.Locked = true
		if err := tx.UpdateNode(n); err != nil {
			return err
		}
		return s.userEvent(tx, n, evReqLock, comment)
	})
}

// Unlock takes that protection away.
func (s *Service) Unlock(ctx context.Context, systemID, comment string) (*storage.Bundle, error) {
	return s.changeMachine(ctx, systemID, permLock, func(tx *storage.Tx, n *storage.Node) error {
		if !n.Locked {
			return Errorf(Conflict, "Machine is not locked")
		}
		n.Locked = false
		if err := tx.UpdateNode(n); err != nil {
			return err
		}
		return s.userEvent(tx, n, evReqUnlock, comment)
	})
}

// RescueMode boots the ephemeral environment on a machine and keeps it there, to look at it.
func (s *Service) RescueMode(ctx context.Context, systemID string) (*storage.Bundle, error) {
	return s.changeMachine(ctx, systemID, permAdmin, func(tx *storage.Tx, n *storage.Node) error {
		if n.PowerType == "" {
			return Errorf(Invalid, "Unconfigured power type. Please set the power type for this machine and try again.")
		}
		if err := s.userEvent(tx, n, evReqStartRescue, ""); err != nil {
			return err
		}
		env, err := s.settingText(tx, "ingot_boot_environment", "light")
		if err != nil {
			return err
		}
		a, deployed := ActorFrom(ctx), n.Status == storage.StatusDeployed
		// The credentials of a deployed system outlive the rescue, unless the machine gets another owner.
		if err := s.transition(tx, n, storage.StatusEnteringRescueMode, transitionOpts{newBoot: !deployed, change: func(n *storage.Node) {
			if n.OwnerID, n.Environment = a.ID(), env; in(n.Status, storage.StatusFailedEnteringRescue, storage.StatusFailedExitingRescue) {
				n.Error, n.ErrorDescription = "", ""
			}
		}}); err != nil {
			return err
		}
		if err := s.nodeEvent(tx, n, evEnteringRescue, ""); err != nil {
			return err
		}
		return s.powerUp(tx, n)
	})
}

// ExitRescueMode brings a machine back to what it was before.
func (s *Service) ExitRescueMode(ctx context.Context, systemID string) (*storage.Bundle, error) {
	return s.changeMachine(ctx, systemID, permAdmin, func(tx *storage.Tx, n *storage.Node) error {
		if err := s.userEvent(tx, n, evReqStopRescue, ""); err != nil {
			return err
		}
		if err := s.transition(tx, n, storage.StatusExitingRescueMode, transitionOpts{}); err != nil {
			return err
		}
		switch {
		case !s.queryable(n.PowerType):
			return s.exitedRescue(tx, n)
		case n.PreviousStatus == storage.StatusDeployed:
			_, err := s.power(tx, n, PowerCycle, false)
			return err
		default:
			return s.powerDown(tx, n)
		}
	})
}

func (s *Service) exitedRescue(tx *storage.Tx, n *storage.Node) error {
	to := n.PreviousStatus
	if !AllowedTransition(storage.StatusExitingRescueMode, to) {
		to = storage.StatusBroken
	}
	if err := s.transition(tx, n, to, transitionOpts{change: func(n *storage.Node) {
		if to != storage.StatusDeployed && to != storage.StatusAllocated {
			n.OwnerID = nil
		}
	}}); err != nil {
		return err
	}
	return s.nodeEvent(tx, n, evExitedRescue, "")
}

// timeoutText is what a machine that was silent too long says.
func timeoutText(status storage.NodeStatus, minutes int64) string {
	return fmt.Sprintf("Node operation '%s' timed out after %d minutes.", status, minutes)
}
