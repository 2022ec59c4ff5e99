package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

var (
	scriptTypeNames = map[int64]string{storage.SetCommissioning: "Commissioning script", storage.SetTesting: "Testing script", storage.SetRelease: "Release script",
		storage.SetDeployment: "Deployment script"}
	hardwareTypeNames = map[int64]string{provisioner.HardwareNode: "Node", provisioner.HardwareCPU: "CPU", provisioner.HardwareMemory: "Memory",
		provisioner.HardwareStorage: "Storage", provisioner.HardwareNetwork: "Network", provisioner.HardwareGPU: "GPU"}
	parallelNames = map[int64]string{0: "Disabled", 1: "Run along other instances of this script", 2: "Run along any other script"}
)

// clock is a duration as MAAS writes it: [D day[s], ]H:MM:SS.
func clock(d time.Duration) string {
	s := int64(d / time.Second)
	out := fmt.Sprintf("%d:%02d:%02d", s/3600%24, s/60%60, s%60)
	switch days := s / 86400; {
	case days == 1:
		out = "1 day, " + out
	case days > 1:
		out = fmt.Sprintf("%d days, %s", days, out)
	}
	return out
}

func scriptURI(name string) string { return apiRoot + "scripts/" + name }

// object reads a stored JSON object.
func object(raw json.RawMessage) map[string]any {
	out := map[string]any{}
	if len(raw) > 0 {
		_ = json.Unmarshal(raw, &out) // was checked when it was stored
	}
	return out
}

func renderScript(texts bool) func(provisioner.ScriptWithHistory) api.Script {
	return func(x provisioner.ScriptWithHistory) api.Script {
		var results any = map[string]any{}
		if len(x.Results) > 0 {
			_ = json.Unmarshal(x.Results, &results) // an object or a list, checked when it was stored
		}
		out := api.Script{ResourceURI: scriptURI(x.Name), ID: x.ID, Name: x.Name, Title: x.Title, Description: x.Description, Tags: listOf(x.Tags), Type: x.Type,
			TypeName: scriptTypeNames[x.Type], HardwareType: x.HardwareType, HardwareTypeName: hardwareTypeNames[x.HardwareType], Parallel: x.Parallel,
			ParallelName: parallelNames[x.Parallel], Results: results, Parameters: object(x.Parameters), Packages: object(x.Packages), Timeout: clock(x.Timeout),
			Destructive: x.Destructive, ForHardware: listOf(x.ForHardware), MayReboot: x.MayReboot, Recommission: x.Recommission, Default: x.IsDefault,
			ApplyConfiguredNetworking: x.ApplyNetwork, History: []map[string]any{}}
		for _, v := range x.History {
			item := map[string]any{"id": v.ID, "comment": v.Comment, "created": api.T2(v.Created)}
			if texts {
				item["data"] = v.Content
			}
			out.History = append(out.History, item)
		}
		return out
	}
}

func script(x provisioner.ScriptWithHistory, err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderScript(false)(x))
}

// word reads a parameter that is one of some words.
func word(p *string, field string, parse func(string) (int64, bool)) (*int64, error) {
	if p == nil || *p == "" {
		return nil, nil
	}
	n, ok := parse(*p)
	if !ok {
		return nil, provisioner.Errorf(provisioner.Invalid, "Unknown %s: %s", field, strings.ToValidUTF8(*p, "\uFFFD"))
	}
	return &n, nil
}

// scriptParams are the parameters of scripts in a request: what the operation does not know itself.
func scriptParams(in *api.Input) map[string]string {
	out := map[string]string{}
	for k, v := range in.Extra {
		if len(v) > 0 {
			out[k] = v[len(v)-1]
		}
	}
	return out
}

// NodeScriptsList lists scripts.
func (s *Server) NodeScriptsList(ctx context.Context, p api.NodeScriptsListParams) (oapi.Response, error) {
	typ, err := word(p.Type, "script type", provisioner.ParseScriptType)
	if err != nil {
		return oapi.Response{}, err
	}
	hardware, err := word(p.HardwareType, "hardware type", provisioner.ParseHardwareType)
	if err != nil {
		return oapi.Response{}, err
	}
	list, err := s.P.Scripts(ctx, provisioner.ScriptFilter{Type: typ, HardwareType: hardware, Names: p.Filters}, yes(p.IncludeScript))
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(list, renderScript(yes(p.IncludeScript))))
}

// NodeScriptsCreate adds a script. It may come as the only file, under its own name.
func (s *Server) NodeScriptsCreate(ctx context.Context, p api.NodeScriptsCreateParams) (oapi.Response, error) {
	in := provisioner.ScriptInput{Name: p.Name, Title: p.Title, Description: p.Description, Type: p.Type, HardwareType: p.HardwareType, Parallel: p.Parallel,
		Timeout: p.Timeout, Tags: p.Tags, ForHardware: p.ForHardware, Packages: p.Packages, Destructive: p.Destructive, MayReboot: p.MayReboot,
		Recommission: p.Recommission, ApplyNetwork: p.ApplyConfiguredNetworking, Comment: p.Comment}
	switch {
	case p.Script != nil:
		in.Content = notNil(p.Script.Content)
	case len(p.Files) == 1:
		in.Content = notNil(p.Files[0].Content)
		if in.Name == nil {
			in.Name = &p.Files[0].Field
		}
	}
	return script(s.P.CreateScript(ctx, in))
}

func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// NodeScriptRead answers a script.
func (s *Server) NodeScriptRead(ctx context.Context, p api.NodeScriptReadParams) (oapi.Response, error) {
	x, err := s.P.Script(ctx, p.Name, yes(p.IncludeScript))
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderScript(yes(p.IncludeScript))(x))
}

// NodeScriptUpdate changes a script.
func (s *Server) NodeScriptUpdate(ctx context.Context, p api.NodeScriptUpdateParams) (oapi.Response, error) {
	in := provisioner.ScriptInput{Name: p.NewName, Title: p.Title, Description: p.Description, Type: p.Type, HardwareType: p.HardwareType, Parallel: p.Parallel,
		Timeout: p.Timeout, Tags: p.Tags, ForHardware: p.ForHardware, Packages: p.Packages, Destructive: p.Destructive, MayReboot: p.MayReboot,
		Recommission: p.Recommission, ApplyNetwork: p.ApplyConfiguredNetworking, Comment: p.Comment}
	if p.Script != nil {
		in.Content = notNil(p.Script.Content)
	}
	return script(s.P.UpdateScript(ctx, p.Name, in))
}

// NodeScriptDelete removes a script.
func (s *Server) NodeScriptDelete(ctx context.Context, p api.NodeScriptDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteScript(ctx, p.Name); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

const scriptContentType = "application/binary"

// NodeScriptDownload answers a script's text.
func (s *Server) NodeScriptDownload(ctx context.Context, p api.NodeScriptDownloadParams) (oapi.Response, error) {
	revision := p.Revision
	if revision == nil {
		revision = p.Rev
	}
	b, err := s.P.ScriptText(ctx, p.Name, revision)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.Bytes(scriptContentType, b)
}

// NodeScriptRevert goes back to an earlier text.
func (s *Server) NodeScriptRevert(ctx context.Context, p api.NodeScriptRevertParams) (oapi.Response, error) {
	return script(s.P.RevertScript(ctx, p.Name, p.To))
}

// NodeScriptAddTag gives a script a tag.
func (s *Server) NodeScriptAddTag(ctx context.Context, p api.NodeScriptAddTagParams) (oapi.Response, error) {
	return script(s.P.AddScriptTag(ctx, p.Name, p.Tag))
}

// NodeScriptRemoveTag takes a tag from a script.
func (s *Server) NodeScriptRemoveTag(ctx context.Context, p api.NodeScriptRemoveTagParams) (oapi.Response, error) {
	return script(s.P.RemoveScriptTag(ctx, p.Name, p.Tag))
}

// commissioningScripts are the scripts that the old resource shows: its own kind only.
func (s *Server) commissioningScript(ctx context.Context, name string) (provisioner.ScriptWithHistory, error) {
	if !provisioner.ActorFrom(ctx).Can("can_edit_global_entities") {
		return provisioner.ScriptWithHistory{}, provisioner.Errorf(provisioner.Forbidden, "Forbidden")
	}
	x, err := s.P.Script(ctx, name, false)
	if err == nil && (x.Type != storage.SetCommissioning || x.Name != name) {
		err = provisioner.Errorf(provisioner.NotFound, "No Script matches the given query.")
	}
	return x, err
}

// CommissioningScriptsList lists the names of commissioning scripts.
func (s *Server) CommissioningScriptsList(ctx context.Context, _ api.CommissioningScriptsListParams) (oapi.Response, error) {
	if !provisioner.ActorFrom(ctx).Can("can_edit_global_entities") {
		return oapi.Response{}, provisioner.Errorf(provisioner.Forbidden, "Forbidden")
	}
	typ := int64(storage.SetCommissioning)
	list, err := s.P.Scripts(ctx, provisioner.ScriptFilter{Type: &typ}, false)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(list, func(x provisioner.ScriptWithHistory) string { return x.Name }))
}

// CommissioningScriptsCreate adds a commissioning script.
func (s *Server) CommissioningScriptsCreate(ctx context.Context, p api.CommissioningScriptsCreateParams) (oapi.Response, error) {
	typ := "commissioning"
	in := provisioner.ScriptInput{Name: &p.Name, Type: &typ}
	if p.Content != nil {
		in.Content = notNil(p.Content.Content)
	}
	x, err := s.P.CreateScript(ctx, in)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, api.CommissioningScript{Name: x.Name, Content: in.Content, Deprecated: "The commissioning-scripts endpoint is deprecated: use scripts/.",
		ResourceURI: apiRoot + "commissioning-scripts/" + x.Name})
}

// CommissioningScriptRead answers a commissioning script's text.
func (s *Server) CommissioningScriptRead(ctx context.Context, p api.CommissioningScriptReadParams) (oapi.Response, error) {
	x, err := s.commissioningScript(ctx, p.Name)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.Bytes(scriptContentType, x.Content)
}

// CommissioningScriptUpdate gives a commissioning script another text.
func (s *Server) CommissioningScriptUpdate(ctx context.Context, p api.CommissioningScriptUpdateParams) (oapi.Response, error) {
	if _, err := s.commissioningScript(ctx, p.Name); err != nil {
		return oapi.Response{}, err
	}
	in := provisioner.ScriptInput{}
	if p.Content != nil {
		in.Content = notNil(p.Content.Content)
	}
	if _, err := s.P.UpdateScript(ctx, p.Name, in); err != nil {
		return oapi.Response{}, err
	}
	return oapi.Text(http.StatusOK, "OK")
}

// CommissioningScriptDelete removes a commissioning script.
func (s *Server) CommissioningScriptDelete(ctx context.Context, p api.CommissioningScriptDeleteParams) (oapi.Response, error) {
	if _, err := s.commissioningScript(ctx, p.Name); err != nil {
		return oapi.Response{}, err
	}
	if err := s.P.DeleteScript(ctx, p.Name); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

// MachineTest runs tests on a machine.
func (s *Server) MachineTest(ctx context.Context, p api.MachineTestParams) (oapi.Response, error) {
	return machine(s.P.TestMachine(ctx, p.SystemID, provisioner.TestParams{EnableSSH: yes(p.EnableSSH),
		ScriptChoice: provisioner.ScriptChoice{Scripts: p.TestingScripts, Params: scriptParams(&p.Input)}}))
}
