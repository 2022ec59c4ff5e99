package provisioner

import (
	"context"
	"errors"
	"slices"
	"strings"

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
		chosen, err := s.testingSet(tx, n, p)
		if err != nil {
			return err
		}
		if err := s.userEvent(tx, n, evReqTest, ""); err != nil {
			return err
		}
		env, err := s.scriptEnvironment(tx, n, slices.ContainsFunc(chosen, func(x storage.Script) bool { return wantsDistribution(&x) }))
		if err != nil {
			return err
		}
		flags, err := s.lendAddresses(tx, n, chosen)
		if err != nil {
			return err
		}
		a, deployed := ActorFrom(ctx), n.Status == storage.StatusDeployed
		if err := s.transition(tx, n, storage.StatusTesting, transitionOpts{newBoot: !deployed, change: func(n *storage.Node) {
			if n.OwnerID == nil {
				n.OwnerID = a.ID()
			}
			n.Environment, n.Error, n.ErrorDescription = env, "", ""
			n.CommissionFlags = strings.Trim(CommissionParams{EnableSSH: p.EnableSSH}.flags()+","+flags, ",")
		}}); err != nil {
			return err
		}
		if err := s.nodeEvent(tx, n, evTesting, ""); err != nil {
			return err
		}
		return s.powerUp(tx, n)
	})
}

// flagTestAddresses is the word of Node.CommissionFlags that says that a test borrowed the automatic addresses.
const flagTestAddresses = "test_addresses"

// lendAddresses gives the automatic links of a machine their addresses for tests that want the configured network, where it has none: it
// would have them when it is deployed. It returns the flag that remembers this; returnAddresses takes them back.
func (s *Service) lendAddresses(tx *storage.Tx, n *storage.Node, chosen []storage.Script) (flag string, err error) {
	if !slices.ContainsFunc(chosen, func(x storage.Script) bool { return x.ApplyNetwork }) ||
		in(n.Status, storage.StatusDeployed, storage.StatusFailedDeployment) {
		return "", nil
	}
	if err := s.claimAutoAddresses(tx, n.ID); err != nil {
		return "", err
	}
	return flagTestAddresses, nil
}

// returnAddresses ends what lendAddresses began, when a machine leaves its tests.
func (s *Service) returnAddresses(tx *storage.Tx, n *storage.Node, from, to storage.NodeStatus) error {
	if from != storage.StatusTesting || to == storage.StatusTesting || !hasFlag(n, flagTestAddresses) {
		return nil
	}
	return s.releaseAutoAddresses(tx, n.ID)
}

// testingSet makes the set of what a test run is to run, and returns what that is.
func (s *Service) testingSet(tx *storage.Tx, n *storage.Node, p TestParams) ([]storage.Script, error) {
	all, err := tx.Scripts()
	if err != nil {
		return nil, err
	}
	hw, err := s.hardwareFacts(tx, n.ID)
	if err != nil {
		return nil, err
	}
	chosen := chooseScripts(all, storage.SetTesting, p.ScriptChoice, hw)
	if len(chosen) == 0 {
		return nil, Errorf(Invalid, "No testing scripts found!")
	}
	if (n.Status == storage.StatusDeployed || n.PreviousStatus == storage.StatusDeployed && keepsPrevious(n.Status)) &&
		slices.ContainsFunc(chosen, func(x storage.Script) bool { return x.Destructive }) {
		return nil, FieldError("testing_scripts", "Unable to run destructive test while deployed!")
	}
	b, err := tx.LoadMachine(n.SystemID)
	if err != nil {
		return nil, err
	}
	results, err := pendingResults(chosen, p.Params, devicesOf(b))
	if err != nil {
		return nil, err
	}
	for _, r := range results {
		if given, waits := waitsForDevices(r.Parameters); waits {
			x := chosen[slices.IndexFunc(chosen, func(x storage.Script) bool { return x.ID == *r.ScriptID })]
			for name, param := range scriptParams(x.Parameters) {
				if _, ok := given[name]; ok && param.Type == "interface" {
					return nil, Errorf(Invalid, "An interface must be configured to run network testing!")
				}
			}
			return nil, Errorf(Invalid, "%s needs a storage device, and the machine has none.", x.Name)
		}
	}
	names, _, _ := p.names()
	_, err = s.newScriptSet(tx, n, storage.SetTesting, names, results)
	return chosen, err
}
