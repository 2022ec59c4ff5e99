package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/api/client"
)

// completionTime bounds what a shell waits for names.
const completionTime = 3 * time.Second

// lists finds a list operation by its path.
var lists = func() map[string]*api.Operation {
	m := map[string]*api.Operation{}
	for _, h := range api.Handlers {
		for _, op := range h.Ops {
			if op.Method == "GET" && op.Op == "" && strings.HasPrefix(op.Returns, "[]") {
				for _, p := range append([]string{op.Path}, op.Aliases...) {
					m[p] = op
				}
			}
		}
	}
	return m
}()

// collections are the lists whose paths do not follow from those of their elements.
var collections = map[string]string{"/license-key/": "/license-keys/", "/resourcepool/": "/resourcepools/", "/vlans/": "/fabrics/"}

// listFor is the list that holds what a path's parameter names, and the path up to there.
func listFor(path, param string) *api.Operation {
	before, _, ok := strings.Cut(path, "{"+param+"}")
	if !ok {
		return nil
	}
	for _, p := range []string{before, collections[before], strings.TrimSuffix(before, "/") + "s/"} {
		if op := lists[p]; op != nil {
			return op
		}
	}
	return nil
}

// listOf is the command that lists what an operation's last path parameter names.
func listOf(op *api.Operation) string {
	names := api.PathParams(op.Path)
	if len(names) == 0 {
		return ""
	}
	list := listFor(op.Path, names[len(names)-1])
	if list == nil {
		return ""
	}
	s := nounOf(list.Handler.Name) + " " + verbOf(list).name
	for _, p := range api.PathParams(list.Path) {
		s += " " + strings.ToUpper(p)
	}
	return s
}

// references are parameters whose values are names of other objects: the list, and the key that names them.
var references = map[string][2]string{
	"zone": {"/zones/", "name"}, "pool": {"/resourcepools/", "name"}, "domain": {"/domains/", "name"}, "not_in_zone": {"/zones/", "name"},
	"not_in_pool": {"/resourcepools/", "name"}, "not_domain": {"/domains/", "name"}, "tags": {"/tags/", "name"}, "not_tags": {"/tags/", "name"},
	"machines": {"/machines/", "system_id"}, "nodes": {"/nodes/", "system_id"}, "system_id": {"/machines/", "system_id"},
	"destinations": {"/machines/", "system_id"}, "fabric": {"/fabrics/", "id"}, "subnet": {"/subnets/", "id"},
	"space": {"/spaces/", "name"}, "owner": {"/users/", "username"}, "not_owner": {"/users/", "username"}, "primary_rack": {"/rackcontrollers/", "system_id"},
	"secondary_rack": {"/rackcontrollers/", "system_id"}, "distro_series": {"/boot-resources/", "name"}, "transfer_resources_to": {"/users/", "username"},
	"commissioning_scripts": {"/scripts/", "name"}, "testing_scripts": {"/scripts/", "name"},
}

// completeArgs completes what stands behind an operation: path parameters by what there is, then NAME=VALUE.
func (a *app) completeArgs(op *api.Operation) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		names := api.PathParams(op.Path)
		if len(args) < len(names) {
			list := listFor(op.Path, names[len(args)])
			path := map[string]string{}
			for i, v := range args {
				path[names[i]] = v
			}
			return a.complete(cmd, list, path, names[len(args)], "", word), cobra.ShellCompDirectiveNoFileComp
		}
		if name, value, ok := strings.Cut(word, "="); ok {
			if strings.HasPrefix(value, "@") || strings.HasSuffix(name, "@") {
				return nil, cobra.ShellCompDirectiveDefault
			}
			if i := slices.IndexFunc(op.Params, func(p api.Param) bool { return p.Name == name }); i >= 0 {
				return a.completeValue(cmd, op.Params[i], name+"=", value), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveDefault
		}
		var out []string
		for _, p := range params(op) {
			if strings.HasPrefix(p.Name, word) {
				out = append(out, p.Name+"=\t"+p.Doc)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
}

func (a *app) completeFlag(p api.Param) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		if p.In == api.Upload || p.In == api.Body || strings.HasPrefix(word, "@") {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return a.completeValue(cmd, p, "", word), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeValue completes a parameter's value: choices, truth, or names of objects.
func (a *app) completeValue(cmd *cobra.Command, p api.Param, prefix, word string) []string {
	choices := p.Choices
	if len(choices) == 0 && isBool(p) {
		choices = []string{"true", "false"}
	}
	if len(choices) > 0 {
		var out []string
		for _, c := range choices {
			if strings.HasPrefix(c, word) {
				out = append(out, prefix+c)
			}
		}
		return out
	}
	ref, ok := references[p.Name]
	if !ok {
		return nil
	}
	return a.complete(cmd, lists[ref[0]], nil, ref[1], prefix, word)
}

// complete asks the server for a list and offers the keys that begin with the word. Whatever fails gives nothing: a shell is no
// place for errors.
func (a *app) complete(cmd *cobra.Command, list *api.Operation, path map[string]string, key, prefix, word string) []string {
	if list == nil || a.key == "-" {
		return nil
	}
	c, _, err := a.dial()
	if err != nil {
		return nil
	}
	parent := cmd.Context()
	if parent == nil {
		parent = context.Background()
	}
	ctx, cancel := context.WithTimeout(parent, completionTime)
	defer cancel()
	ans, err := c.Do(ctx, list, client.Request{Path: path})
	if err != nil {
		return nil
	}
	n, err := parse(ans.Body)
	if err != nil {
		return nil
	}
	var out []string
	for _, item := range all(n, nil) {
		id := item.Value
		if item.Kind == yaml.MappingNode {
			id = ""
			for _, k := range []string{key, "id", "system_id", "name"} {
				if id = text(item, k); id != "" {
					break
				}
			}
		}
		if id == "" || !strings.HasPrefix(id, word) || strings.ContainsAny(id, "\t\n") || clean(id) != id {
			continue
		}
		out = append(out, prefix+id+describe(item, id))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// describe is what a shell shows beside an id.
func describe(item *yaml.Node, id string) string {
	var parts []string
	for _, k := range []string{"hostname", "name", "username", "cidr", "title", "vid", "mac_address", "status_name", "description", "comment"} {
		if s := clean(text(item, k)); s != "" && s != id && len(parts) < 3 {
			parts = append(parts, s)
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "\t" + strings.Join(parts, ", ")
}

// completionCommand writes the completion of a shell. Bash splits words at "=", which the stock script does not know.
func completionCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Write the completion of commands, parameters, names and ids for a shell",
		Long: `Writes a script for the shell:
  bash   source <(ingot completion bash)             or into /etc/bash_completion.d/ingot (needs the package bash-completion)
  zsh    ingot completion zsh > "${fpath[1]}/_ingot"
  fish   ingot completion fish > ~/.config/fish/completions/ingot.fish
Ids and names come from the server of the current profile.`,
		ValidArgs:             []string{"bash", "zsh", "fish"},
		Args:                  cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			switch args[0] {
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			}
			if err := root.GenBashCompletionV2(out, true); err != nil {
				return err
			}
			_, err := fmt.Fprint(out, bashEquals)
			return err
		},
	}
}

const bashEquals = `
# Bash replaces what stands behind the last "=" of a word only: take the part before it off what is offered.
__ingot_equals() {
    __start_ingot "$@"
    local word="${COMP_LINE:0:COMP_POINT}"
    word="${word##* }"
    if [[ $word == *=* && $COMP_WORDBREAKS == *=* ]]; then
        local before="${word%"${word##*=}"}" i
        for i in "${!COMPREPLY[@]}"; do COMPREPLY[i]="${COMPREPLY[i]#"$before"}"; done
    fi
}
complete -o default -F __ingot_equals ingot
`
