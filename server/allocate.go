package server

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
)

// allocateOptions are the parameters of allocate that are no constraints.
var allocateOptions = []string{"agent_name", "comment", "bridge_all", "bridge_type", "bridge_stp", "bridge_fd", "dry_run", "verbose",
	"install_kvm", "install_rackd", "register_vmhost", "format", "callback"}

// problemType is the content type of explanations.
const problemType = "application/problem+json"

// MachinesAllocate gives the caller a machine.
func (s *Server) MachinesAllocate(ctx context.Context, p api.MachinesAllocateParams) (oapi.Response, error) {
	for _, flag := range []string{"install_kvm", "install_rackd", "register_vmhost"} {
		if v := strings.ToLower(p.Sent.Get(flag)); !slices.Contains([]string{"", "false", "f", "0", "off", "no", "n"}, v) {
			return oapi.Response{}, provisioner.Errorf(provisioner.Invalid, "Support for %s allocation parameter has been removed.", flag)
		}
	}
	if t := text(p.BridgeType); t != "" && t != "standard" && t != "ovs" {
		return oapi.Response{}, provisioner.Errorf(provisioner.Invalid, "Invalid bridge_type: Value must be one of: standard, ovs (not '%s')", t)
	}
	a, err := s.P.Allocate(ctx, provisioner.AllocateRequest{Constraints: pairs(&p.Input, allocateOptions...), AgentName: text(p.AgentName),
		Comment: text(p.Comment), Bridges: bridgeAll(p.BridgeAll, p.BridgeType, p.BridgeSTP, p.BridgeFd), DryRun: yes(p.DryRun), Verbose: yes(p.Verbose),
		Explain: provisioner.ActorFrom(ctx).Explain})
	var none *provisioner.NoMatchError
	if errors.As(err, &none) && none.Explanation != nil {
		var body bytes.Buffer
		if err := api.WriteJSON(&body, renderNoMatch(none)); err != nil {
			return oapi.Response{}, err
		}
		return oapi.Response{Status: http.StatusConflict, ContentType: problemType, Body: body.Bytes()}, nil
	}
	if err != nil {
		return oapi.Response{}, err
	}
	m := renderMachine(a.Machine)
	m.ConstraintsByType = &api.ConstraintsByType{Storage: a.Matches.Storage, Interfaces: a.Matches.Interfaces}
	if yes(p.Verbose) {
		m.ConstraintsByType.VerboseStorage, m.ConstraintsByType.VerboseInterfaces = a.Matches.VerboseStorage, a.Matches.VerboseInterfaces
	}
	return oapi.JSON(http.StatusOK, m)
}

// renderNoMatch is the problem that explains why nothing matched.
func renderNoMatch(e *provisioner.NoMatchError) api.NoMatch {
	x := e.Explanation
	out := api.NoMatch{Type: "about:blank", Title: "No machine matches", Status: http.StatusConflict, Detail: e.Error(), Machines: int64(x.Machines),
		Available: int64(x.Available), Constraints: []api.NoMatchConstraint{}, Relax: []api.NoMatchRelax{}, Nearest: []api.NoMatchMiss{}}
	for _, k := range x.Constraints {
		out.Constraints = append(out.Constraints, api.NoMatchConstraint{Constraint: k.Constraint, Values: listOf(k.Values), Left: int64(k.Left), Alone: int64(k.Alone)})
	}
	for _, r := range x.Relax {
		out.Relax = append(out.Relax, api.NoMatchRelax{Constraint: r.Constraint, Values: listOf(r.Values), Machines: int64(r.Machines), SystemID: r.SystemID,
			Hostname: r.Hostname})
	}
	for _, m := range x.Nearest {
		out.Nearest = append(out.Nearest, api.NoMatchMiss(m))
	}
	return out
}
