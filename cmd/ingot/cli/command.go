package cli

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/api/client"
)

// reserved are the flags that a parameter of the same name must not hide; its own flag is then --param-NAME.
var reserved = []string{"profile", "server", "key", "ca-file", "insecure", "output", "idempotency-key", "wait", "wait-timeout", "help", "log-level", "log-format"}

// flagOf is the flag of a parameter.
func flagOf(name string) string {
	f := dashes(name)
	if slices.Contains(reserved, f) {
		return "param-" + f
	}
	return f
}

func (a *app) nounCommand(n *noun) *cobra.Command {
	c := &cobra.Command{Use: n.name, Aliases: n.aliases, Short: n.short(), Long: n.doc, Hidden: n.hidden, GroupID: groupAPI}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return a.usagef("%s has no command %q: `ingot %s --help` lists them", n.name, args[0], n.name)
		}
		return cmd.Help()
	}
	a.connectionFlags(c)
	c.PersistentFlags().StringVarP(&a.output, "output", "o", "table", "table, wide, json or yaml")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "wide", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	c.SetGlobalNormalizationFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName { return pflag.NormalizedName(dashes(name)) })
	for _, v := range n.verbs {
		c.AddCommand(a.verbCommand(n, v))
	}
	return c
}

// params are an operation's parameters that do not stand in its path.
func params(op *api.Operation) []api.Param {
	return slices.DeleteFunc(slices.Clone(op.Params), func(p api.Param) bool { return p.In == api.Path })
}

// sends says whether an operation has a body.
func sends(op *api.Operation) bool {
	return op.Method == http.MethodPost || op.Method == http.MethodPut
}

func (a *app) verbCommand(n *noun, v verb) *cobra.Command {
	op := v.op
	use := v.name
	for _, p := range api.PathParams(op.Path) {
		use += " " + strings.ToUpper(p)
	}
	if len(params(op)) > 0 || len(op.Dynamic) > 0 {
		use += " [NAME=VALUE]..."
	}
	c := &cobra.Command{Use: use, Aliases: v.aliases, Short: op.Title, Long: longHelp(op), DisableFlagsInUseLine: true, Hidden: op.AnonOnly}
	if op.Deprecated {
		c.Short += " (deprecated)"
	}
	if op.Gone != "" {
		c.Short += " (gone from newer servers)"
	}
	given := map[string]*values{}
	for _, p := range params(op) {
		fv := newValues(p)
		given[p.Name] = fv
		f := c.Flags().VarPF(fv, flagOf(p.Name), "", paramHelp(p))
		if isBool(p) {
			f.NoOptDefVal = "true"
		}
		f.Hidden = strings.HasPrefix(p.Doc, "Removed")
		_ = c.RegisterFlagCompletionFunc(flagOf(p.Name), a.completeFlag(p))
	}
	wait, canWait := waits[op.ID]
	var waitFor bool
	var timeout time.Duration
	if canWait {
		c.Flags().BoolVar(&waitFor, "wait", false, "wait until the machine is done, telling each status change and event")
		c.Flags().DurationVar(&timeout, "wait-timeout", time.Hour, "how long to wait at most")
	}
	if op.Method != http.MethodGet {
		c.Flags().StringVar(&a.onceKey, "idempotency-key", "", "made again with the same key, the call changes nothing twice (Ingot only)")
	}
	c.ValidArgsFunction = a.completeArgs(op)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains([]string{"table", "wide", "json", "yaml"}, a.output) {
			return a.usagef("--output %q: table, wide, json or yaml", a.output)
		}
		in := newInput(op, a.in)
		if err := in.positionals(&args); err != nil {
			return a.usagef("%w: ingot %s %s", err, n.name, use)
		}
		for _, arg := range args {
			if err := in.pair(arg); err != nil {
				return a.usagef("%w (`ingot %s %s --help` tells what it takes)", err, n.name, v.name)
			}
		}
		for _, p := range params(op) {
			for _, text := range given[p.Name].list {
				if err := in.set(p.Name, text); err != nil {
					return a.usage(err)
				}
			}
		}
		c, t, err := a.dial()
		if err != nil {
			return err
		}
		call := &call{app: a, client: c, target: t, op: op}
		if in.upload != nil {
			defer in.upload.Close()
		}
		ctx := a.context(cmd)
		if op.ID == "machines.allocate" {
			ctx = client.WithExplanation(ctx)
		}
		var w *waiter
		if waitFor {
			w = call.waiter(ctx, wait, in.request, timeout)
		}
		var ans client.Answer
		if in.upload != nil {
			ans, err = call.uploadImage(ctx, in)
		} else {
			ans, err = c.Do(ctx, op, in.request)
		}
		if err != nil {
			return a.explain(op, t, err)
		}
		if w != nil {
			if ans, err = w.run(cmd.Context(), ans); err != nil {
				return err
			}
		}
		return call.print(ans)
	}
	return c
}

// call is one use of an operation.
type call struct {
	*app
	client *client.Client
	target target
	op     *api.Operation
}

func isBool(p api.Param) bool {
	switch p.Kind {
	case api.Bool, api.DjBool, api.AnyBool, api.SubnetBool, api.Bool01:
		return !p.Repeat
	}
	return false
}

// longHelp tells what an operation does, and what it takes beside flags.
func longHelp(op *api.Operation) string {
	var b bytes.Buffer
	b.WriteString(op.Title + ".")
	if op.Doc != "" {
		b.WriteString("\n" + op.Doc)
	}
	if op.Gone != "" {
		b.WriteString("\nNewer servers answer: " + op.Gone)
	}
	for _, alias := range op.Aliases {
		if names := api.PathParams(alias); len(names) != len(api.PathParams(op.Path)) {
			fmt.Fprintf(&b, "\n%s alone does in place of %s.", strings.ToUpper(strings.Join(names, " ")), strings.ToUpper(strings.Join(api.PathParams(op.Path), " ")))
		}
	}
	if len(params(op)) > 0 {
		b.WriteString("\n\nParameters are flags or NAME=VALUE, in any mix; what may come several times is a list. NAME=@FILE and --flag @FILE take the\n" +
			"content of a file, @- the standard input, @@ a value that begins with @. Names that are not listed are sent as they are.")
	}
	for _, d := range op.Dynamic {
		fmt.Fprintf(&b, "\n\nFurther: %s=VALUE  %s", strings.NewReplacer("{", "", "}", "").Replace(strings.ToUpper(d.Name)), d.Doc)
	}
	if op.ID == "boot_resources.create" {
		b.WriteString("\n\ncontent=@FILE sends an image in pieces; its size and sha256 are then filled in.")
	}
	return b.String()
}

// paramHelp is a flag's line of help.
func paramHelp(p api.Param) string {
	s := strings.ReplaceAll(p.Doc, "`", "'") // pflag reads backquotes as the name of the value
	if len(p.Choices) > 0 {
		list := strings.Join(p.Choices, ", ")
		if len(list) > 90 {
			list = list[:strings.LastIndex(list[:90], ",")] + ", …"
		}
		s += " (" + list + ")"
	}
	if p.Default != "" {
		s += " (default " + p.Default + ")"
	}
	if p.Required {
		s += " (required)"
	}
	return s
}
