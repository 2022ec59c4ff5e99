package provisioner

import (
	"context"
	"errors"
	"slices"

	"github.com/ingot-metal/ingot/storage"
)

// TestParams are the options of testing.
type TestParams struct {
	EnableSSH bool
	ScriptChoice
}

// TestMachine runs test scripts on a machine.
func (s *Service) TestMachine(ctx context.Context, systemID string, p TestParams) (*storage.Bundle, error) {
	return s.changeMachine(ctx, systemID, permAdmin, func(tx *storage.Tx, n *storage.Node) error {
		if !AllowedTransition(n.Status, storage.StatusTesting) || n.Status == storage.StatusTesting {
			return FieldError("__all__", "Testing is not available because of the current state of the node.")
		}
		if err := diskDebt(n); err != nil {
			return err
		}
		if n.PowerType == "" {
			return Errorf(Invalid, "Unconfigured power type. Please set the power type for this machine and try again.")
		}
		if n.Status == storage.StatusNew {
			if _, err := tx.CurrentScriptSet(n.ID, storage.SetCommissioning); errors.Is(err, storage.ErrNotFound) {
				return FieldError("__all__", "Unable to start machine testing; this machine has never been commissioned. Please use 'commission' to begin.")
			} else if err != nil {
				return err
			}
		}
		if err := s.testingSet(tx, n, p); err != nil {
			return err
		}
		if err := s.userEvent(tx, n, evReqTest, ""); err != nil {
			return err
		}
		env, err := s.scriptEnvironment(tx, n, true)
		if err != nil {
			return err
		}
		a, deployed := ActorFrom(ctx), n.Status == storage.StatusDeployed
		if err := s.transition(tx, n, storage.StatusTesting, transitionOpts{newBoot: !deployed, change: func(n *storage.Node) {
			if n.OwnerID == nil {
				n.OwnerID = a.ID()
			}
			n.Environment, n.Error, n.ErrorDescription = env, "", ""
			n.CommissionFlags = CommissionParams{EnableSSH: p.EnableSSH}.flags()
		}}); err != nil {
			return err
		}
		if err := s.nodeEvent(tx, n, evTesting, ""); err != nil {
			return err
		}
		return s.powerUp(tx, n)
	})
}

// testingSet makes the set of what a test run is to run.
func (s *Service) testingSet(tx *storage.Tx, n *storage.Node, p TestParams) error {
	all, err := tx.Scripts()
	if err != nil {
		return err
	}
	hw, err := s.hardwareFacts(tx, n.ID)
	if err != nil {
		return err
	}
	chosen := chooseScripts(all, storage.SetTesting, p.ScriptChoice, hw)
	if len(chosen) == 0 {
		return Errorf(Invalid, "No testing scripts found!")
	}
	if (n.Status == storage.StatusDeployed || n.PreviousStatus == storage.StatusDeployed && keepsPrevious(n.Status)) &&
		slices.ContainsFunc(chosen, func(x storage.Script) bool { return x.Destructive }) {
		return FieldError("testing_scripts", "Unable to run destructive test while deployed!")
	}
	b, err := tx.LoadMachine(n.SystemID)
	if err != nil {
		return err
	}
	results, err := pendingResults(chosen, p.Params, devicesOf(b))
	if err != nil {
		return err
	}
	for _, r := range results {
		if given, waits := waitsForDevices(r.Parameters); waits {
			x := chosen[slices.IndexFunc(chosen, func(x storage.Script) bool { return x.ID == *r.ScriptID })]
			for name, param := range scriptParams(x.Parameters) {
				if _, ok := given[name]; ok && param.Type == "interface" {
					return Errorf(Invalid, "An interface must be configured to run network testing!")
				}
			}
			return Errorf(Invalid, "%s needs a storage device, and the machine has none.", x.Name)
		}
	}
	names, _, _ := p.names()
	_, err = s.newScriptSet(tx, n, storage.SetTesting, names, results)
	return err
}
