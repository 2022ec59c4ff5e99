package server

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/ulikunitz/xz"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

var setTypeNames = map[int64]string{storage.SetCommissioning: "Commissioning", storage.SetInstallation: "Installation", storage.SetTesting: "Testing",
	storage.SetRelease: "Release", storage.SetDeployment: "Deployment"}

// unixTime is a time as seconds, or "" before it.
func unixTime(t time.Time) any {
	if t.IsZero() {
		return ""
	}
	return float64(t.UnixMicro()) / 1e6
}

func elapsed(from, to time.Time) string {
	if from.IsZero() || to.IsZero() {
		return ""
	}
	return clock(max(to.Sub(from), 0))
}

func renderResult(outputs bool) func(provisioner.ResultView) api.ScriptResult {
	return func(r provisioner.ResultView) api.ScriptResult {
		out := api.ScriptResult{ID: r.ID, Created: api.T2(r.Created), Updated: api.T2(r.Updated), Name: r.Name, Status: r.Status,
			StatusName: provisioner.ScriptStatusName(r.Status), ExitStatus: r.ExitStatus, Started: api.T2Opt(r.Started), Ended: api.T2Opt(r.Ended),
			Runtime: elapsed(r.Started, r.Ended), Starttime: unixTime(r.Started), Endtime: unixTime(r.Ended), EstimatedRuntime: "Unknown",
			Parameters: provisioner.ShownParameters(r.Parameters), ScriptID: r.ScriptID, ScriptRevisionID: r.VersionID, Suppressed: r.Suppressed}
		switch {
		case out.Runtime != "":
			out.EstimatedRuntime = out.Runtime
		case r.Script != nil && r.Script.Timeout > 0:
			out.EstimatedRuntime = clock(r.Script.Timeout)
		}
		if outputs {
			all := [4][]byte{notNil(r.Output), notNil(r.Stdout), notNil(r.Stderr), notNil(r.Result)}
			out.Output, out.Stdout, out.Stderr, out.Result = &all[0], &all[1], &all[2], &all[3]
		}
		return out
	}
}

func renderSet(outputs bool) func(provisioner.SetView) api.ScriptSet {
	return func(v provisioner.SetView) api.ScriptSet {
		var started, ended time.Time
		open := len(v.Whole) == 0
		for _, r := range v.Whole {
			if !r.Started.IsZero() && (started.IsZero() || r.Started.Before(started)) {
				started = r.Started
			}
			if r.Ended.After(ended) {
				ended = r.Ended
			}
			open = open || storage.ScriptUnfinished(r.Status)
		}
		if open {
			ended = time.Time{}
		}
		return api.ScriptSet{ResourceURI: apiRoot + "nodes/" + v.SystemID + "/results/" + itoa(v.ID) + "/", ID: v.ID, SystemID: v.SystemID, Type: v.Type,
			TypeName: setTypeNames[v.Type], LastPing: api.T2Opt(v.LastPing), Status: v.Status, StatusName: provisioner.ScriptStatusName(v.Status),
			Started: api.T2Opt(started), Ended: api.T2Opt(ended), Runtime: elapsed(started, ended), Results: each(v.Results, renderResult(outputs))}
	}
}

func resultFilter(typ, hardware *string, names []string, outputs bool) (f provisioner.ResultFilter, err error) {
	if f.Type, err = word(typ, "result type", provisioner.ParseSetType); err != nil {
		return f, err
	}
	f.Hardware, err = word(hardware, "hardware type", provisioner.ParseHardwareType)
	f.Names, f.Outputs = names, outputs
	return f, err
}

// NodeScriptResultsList lists the script sets of a node.
func (s *Server) NodeScriptResultsList(ctx context.Context, p api.NodeScriptResultsListParams) (oapi.Response, error) {
	f, err := resultFilter(p.Type, p.HardwareType, p.Filters, yes(p.IncludeOutput))
	if err != nil {
		return oapi.Response{}, err
	}
	list, err := s.P.ScriptSets(ctx, p.SystemID, f)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(list, renderSet(f.Outputs)))
}

// NodeScriptResultRead answers a script set.
func (s *Server) NodeScriptResultRead(ctx context.Context, p api.NodeScriptResultReadParams) (oapi.Response, error) {
	f, err := resultFilter(nil, p.HardwareType, p.Filters, yes(p.IncludeOutput))
	if err != nil {
		return oapi.Response{}, err
	}
	v, err := s.P.ScriptSet(ctx, p.SystemID, p.ID, f)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderSet(f.Outputs)(v))
}

// NodeScriptResultUpdate says whether results count.
func (s *Server) NodeScriptResultUpdate(ctx context.Context, p api.NodeScriptResultUpdateParams) (oapi.Response, error) {
	f, err := resultFilter(nil, p.HardwareType, p.Filters, yes(p.IncludeOutput))
	if err != nil {
		return oapi.Response{}, err
	}
	v, err := s.P.SuppressResults(ctx, p.SystemID, p.ID, f, p.Suppressed)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderSet(f.Outputs)(v))
}

// NodeScriptResultDelete removes a script set.
func (s *Server) NodeScriptResultDelete(ctx context.Context, p api.NodeScriptResultDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteScriptSet(ctx, p.SystemID, p.ID); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

// printed is one file of a download.
type printed struct {
	name string
	data []byte
	at   time.Time
}

// printedFiles are the outputs of results that a download asks for.
func printedFiles(v provisioner.SetView, output string) ([]printed, error) {
	var out []printed
	for _, r := range v.Results {
		name := r.Name
		for _, w := range strings.Fields(r.Instance) {
			if _, device, ok := strings.Cut(w, ":"); ok {
				name += "-" + device
			}
		}
		name = strings.Trim(strings.ReplaceAll(name, "/", "_"), "._") // installation logs are named by their path
		add := func(suffix string, data []byte) {
			out = append(out, printed{name + suffix, data, r.Updated})
		}
		switch output {
		case "combined":
			add("", r.Output)
		case "stdout":
			add(".out", r.Stdout)
		case "stderr":
			add(".err", r.Stderr)
		case "result":
			add(".yaml", r.Result)
		case "all":
			add("", r.Output)
			add(".out", r.Stdout)
			add(".err", r.Stderr)
			add(".yaml", r.Result)
		default:
			return nil, provisioner.Errorf(provisioner.Invalid, "Unknown output: it is one of combined, stdout, stderr, result and all.")
		}
	}
	return out, nil
}

// NodeScriptResultDownload answers what scripts have printed: as a text, or as an archive.
func (s *Server) NodeScriptResultDownload(ctx context.Context, p api.NodeScriptResultDownloadParams) (oapi.Response, error) {
	f, err := resultFilter(nil, p.HardwareType, p.Filters, true)
	if err != nil {
		return oapi.Response{}, err
	}
	v, err := s.P.ScriptSet(ctx, p.SystemID, p.ID, f)
	if err != nil {
		return oapi.Response{}, err
	}
	output, filetype := text(p.Output), text(p.Filetype)
	if output == "" {
		output = "combined"
	}
	files, err := printedFiles(v, output)
	if err != nil {
		return oapi.Response{}, err
	}
	root := fmt.Sprintf("%s-%s-%d", v.FQDN, strings.ToLower(setTypeNames[v.Type]), v.ID)
	var body []byte
	var kind string
	switch filetype {
	case "", "txt":
		filetype, kind, body = "txt", "text/plain; charset=utf-8", joined(files)
	case "tar.xz":
		kind = "application/x-tar"
		if body, err = archive(root, files); err != nil {
			return oapi.Response{}, err
		}
	default:
		return oapi.Response{}, provisioner.Errorf(provisioner.Invalid, "Unknown filetype: it is one of txt and tar.xz.")
	}
	r, _ := oapi.Bytes(kind, body)
	return r.With("Content-Disposition", `attachment; filename="`+root+"."+filetype+`"`), nil
}

// joined is one file as it is, and several with a title each.
func joined(files []printed) []byte {
	if len(files) == 1 {
		return notNil(files[0].data)
	}
	var b bytes.Buffer
	for _, f := range files {
		line := strings.Repeat("-", len(f.name)+2)
		fmt.Fprintf(&b, "%s\n %s\n%s\n%s\n", line, f.name, line, f.data)
	}
	return notNil(b.Bytes())
}

// archive packs files into one folder.
func archive(root string, files []printed) ([]byte, error) {
	var b bytes.Buffer
	x, err := xz.WriterConfig{DictCap: 1 << 20}.NewWriter(&b)
	if err != nil {
		return nil, err
	}
	w := tar.NewWriter(x)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: root + "/" + f.name, Mode: 0o644, Size: int64(len(f.data)), ModTime: f.at.Truncate(time.Second), Format: tar.FormatPAX}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := x.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// NodeResultsList answers results in their old form. What was printed to stderr is an entry of its own.
func (s *Server) NodeResultsList(ctx context.Context, p api.NodeResultsListParams) (oapi.Response, error) {
	list, err := s.P.OldResults(ctx, nilIfEmpty(p.SystemID), p.Name, p.ResultType)
	if err != nil {
		return oapi.Response{}, err
	}
	out := make([]api.NodeResult, 0, len(list))
	for _, r := range list {
		x := api.NodeResult{ID: r.ID, Created: api.T1(r.Created), Updated: api.T1(r.Updated), Name: r.Name, ScriptResult: r.ExitStatus, ResultType: r.Type,
			Node: map[string]any{"system_id": r.SystemID}, Data: notNil(r.Stdout), ResourceURI: apiRoot + "commissioning-scripts/"}
		if len(r.Stdout) == 0 {
			x.Data = notNil(r.Output)
		}
		out = append(out, x)
		if len(r.Stderr) > 0 {
			x.Name, x.Data = r.Name+".err", r.Stderr
			out = append(out, x)
		}
	}
	return oapi.JSON(http.StatusOK, out)
}
