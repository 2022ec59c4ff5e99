package provisioner

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// ReleaseRequest says how to give a machine back. Nil flags were not given.
type ReleaseRequest struct {
	Comment              string
	Erase, Secure, Quick *bool
	Force                bool
	Scripts              string
}

// The values of Node.Erase.
const (
	EraseQuick  = "quick"
	EraseSecure = "secure"
	EraseFull   = "full"
	// EraseSecureQuick is secure, and quick where a disk offers no secure erase.
	EraseSecureQuick = "secure-or-quick"
)

// releasable are the statuses from which a machine can be given back.
func releasable(st storage.NodeStatus) bool {
	return in(st, storage.StatusAllocated, storage.StatusReserved, storage.StatusBroken, storage.StatusDeploying, storage.StatusDeployed,
		storage.StatusFailedDeployment, storage.StatusFailedDiskErasing, storage.StatusFailedReleasing)
}

// Release gives a machine back, erasing its disks first where that is asked for or configured.
func (s *Service) Release(ctx context.Context, systemID string, req ReleaseRequest) (*storage.Bundle, error) {
	return s.changeMachine(ctx, systemID, permEdit, func(tx *storage.Tx, n *storage.Node) error {
		if in(n.Status, storage.StatusReleasing, storage.StatusReady) {
			return nil
		}
		if !releasable(n.Status) {
			return Errorf(Conflict, "Machine cannot be released in its current state ('%s').", n.Status)
		}
		return s.release(tx, n, req)
	})
}

// ReleaseMachines gives several machines back and returns the ids of those that changed. Those that can be released stay so even when others
// cannot, which is then said.
func (s *Service) ReleaseMachines(ctx context.Context, systemIDs []string, comment string) ([]string, error) {
	a, err := needUser(ctx)
	if err != nil {
		return nil, err
	}
	var released []string
	err = s.write(ctx, func(tx *storage.Tx) error {
		released = []string{}
		var unknown, denied, wrong []string
		var nodes []*storage.Node
		for _, id := range sortedSet(systemIDs) {
			n, err := tx.LockNodeBySystemID(id)
			switch {
			case errors.Is(err, storage.ErrNotFound) || err == nil && n.NodeType != storage.NodeMachine:
				unknown = append(unknown, id)
			case err != nil:
				return err
			case !mayNode(a, &n, permEdit):
				denied = append(denied, id)
			default:
				nodes = append(nodes, &n)
			}
		}
		if len(unknown) > 0 {
			return Errorf(Invalid, "Unknown machine(s): %s.", strings.Join(unknown, ", "))
		}
		if len(denied) > 0 {
			return Errorf(Forbidden, "You don't have the required permission to release the following machine(s): %s.", strings.Join(denied, ", "))
		}
		for _, n := range nodes {
			switch {
			case n.Status == storage.StatusReady:
			case releasable(n.Status):
				if err := s.release(tx, n, ReleaseRequest{Comment: comment}); err != nil {
					return err
				}
				released = append(released, n.SystemID)
			default:
				wrong = append(wrong, fmt.Sprintf("%s ('%s')", n.SystemID, n.Status))
			}
		}
		if len(wrong) > 0 { // undoes what was released
			return Errorf(Conflict, "Machine(s) cannot be released in their current state: %s.", strings.Join(wrong, ", "))
		}
		return nil
	})
	return released, err
}

// eraseMode decides whether and how disks are erased. The setting, where it is on, overrides the request's flags.
func (s *Service) eraseMode(tx *storage.Tx, n *storage.Node, req ReleaseRequest) (string, error) {
	is := func(p *bool) bool { return p != nil && *p }
	erase, secure, quick := is(req.Erase) || is(req.Secure) || is(req.Quick), is(req.Secure), is(req.Quick)
	always, err := s.settingBool(tx, "enable_disk_erasing_on_release", false)
	if err != nil {
		return "", err
	}
	if always {
		erase = true
		if secure, err = s.settingBool(tx, "disk_erase_with_secure_erase", true); err != nil {
			return "", err
		}
		if quick, err = s.settingBool(tx, "disk_erase_with_quick_erase", false); err != nil {
			return "", err
		}
	}
	mode := ""
	switch {
	case erase && secure && quick:
		mode = EraseSecureQuick
	case erase && secure:
		mode = EraseSecure
	case erase && quick:
		mode = EraseQuick
	case erase:
		mode = EraseFull
	case n.Erase != "":
		mode = n.Erase // an earlier release owes it still
	}
	return mode, nil
}

// release begins to give a machine back. n is in a releasable status.
func (s *Service) release(tx *storage.Tx, n *storage.Node, req ReleaseRequest) error {
	if req.Scripts != "" && req.Scripts != "none" && req.Scripts != "wipe-disks" {
		return Errorf(Unbuilt, "Release scripts are not built yet: only wipe-disks runs.")
	}
	if req.Scripts == "wipe-disks" && req.Erase == nil {
		yes := true
		req.Erase = &yes
	}
	mode, err := s.eraseMode(tx, n, req)
	if err != nil {
		return err
	}
	if mode != "" {
		disks, err := tx.BlockDevices(n.ID)
		if err != nil {
			return err
		}
		if len(disks) == 0 {
			mode = ""
		}
	}
	if err := tx.EndScripts(n.ID, storage.ScriptAborted); err != nil {
		return err
	}
	if mode == "" {
		if err := s.userEvent(tx, n, evReqRelease, req.Comment); err != nil {
			return err
		}
		return s.plainRelease(tx, n, false)
	}
	if err := s.userEvent(tx, n, evReqErase, req.Comment); err != nil {
		return err
	}
	if _, err := tx.InsertScriptSet(n.ID, storage.SetRelease, "wipe-disks"); err != nil {
		return err
	}
	env, err := s.settingText(tx, "ingot_boot_environment", "light")
	if err != nil {
		return err
	}
	if err := s.transition(tx, n, storage.StatusDiskErasing, transitionOpts{newBoot: true, change: func(n *storage.Node) {
		n.Erase, n.Netboot, n.Environment, n.ErrorDescription = mode, true, env, ""
	}}); err != nil {
		return err
	}
	return s.powerUp(tx, n)
}

// clearDeployment forgets what was deployed.
func clearDeployment(n *storage.Node) {
	n.AgentName, n.Osystem, n.DistroSeries, n.HWEKernel, n.UserData = "", "", "", "", nil
	n.EnableHWSync, n.EphemeralDeploy, n.Netboot = false, false, true
}

// plainRelease switches the machine off; when that is done it is free. chained: it was erased in this same step.
func (s *Service) plainRelease(tx *storage.Tx, n *storage.Node, erased bool) error {
	if err := s.transition(tx, n, storage.StatusReleasing, transitionOpts{change: func(n *storage.Node) {
		clearDeployment(n)
		n.Error, n.ErrorDescription = "", ""
		if erased {
			n.Erase = ""
		}
	}}); err != nil {
		return err
	}
	if err := s.nodeEvent(tx, n, evReleasing, ""); err != nil {
		return err
	}
	cancelled, err := tx.CancelJobs(n.ID, "power")
	if err != nil {
		return err
	}
	// An order that was on its way may have been carried out: only without one is what the store says of the power true.
	if !s.queryable(n.PowerType) || n.PowerState == "off" && !erased && cancelled == 0 {
		return s.finishRelease(tx, n, true)
	}
	return s.powerDown(tx, n)
}

// finishRelease frees a Releasing machine that is off.
func (s *Service) finishRelease(tx *storage.Tx, n *storage.Node, chained bool) error {
	if err := diskDebt(n); err != nil {
		return err
	}
	if err := s.dropAcquiredBridges(tx, n.ID); err != nil {
		return err
	}
	if err := s.releaseAutoAddresses(tx, n.ID); err != nil {
		return err
	}
	if err := s.dropChildren(tx, n); err != nil {
		return err
	}
	if err := tx.DeleteOwnerData(n.ID); err != nil {
		return err
	}
	passed, err := tx.SetPassed(n.ID, storage.SetCommissioning)
	if err != nil {
		return err
	}
	to := storage.StatusNew
	if passed {
		to = storage.StatusReady
	}
	if err := s.transition(tx, n, to, transitionOpts{chained: chained}); err != nil {
		return err
	}
	return s.nodeEvent(tx, n, evReleased, "")
}
