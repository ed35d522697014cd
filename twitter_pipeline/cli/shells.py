"""The scripts that make bash, zsh and fish ask this program when somebody presses Tab, and where to put them.

They call the program as it was typed, so that `.venv/bin/twitter-pipeline` is completed without being on the PATH.
"""

from collections.abc import Mapping

PROGRAM = "twitter-pipeline"

# The words are taken from the line: bash breaks them at @ in COMP_WORDS, and yet puts the answer in the place of both
# parts. Everything here is known to the bash 3.2 of macOS; what it has no compopt for is left undone.
_BASH = """\
_twitter_pipeline_completion() {
    local line="${COMP_LINE:0:COMP_POINT}" found kind value
    local word="${line##*[[:space:]]}"
    COMPREPLY=()
    while IFS= read -r found; do
        kind="${found%%,*}" value="${found#*,}"
        case $kind in
            file) compopt -o default 2>/dev/null ;;
            dir) compopt -o dirnames 2>/dev/null ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(COMP_WORDS="$line" COMP_CWORD="$word" _TWITTER_PIPELINE_COMPLETE=fish_complete \\
        "${1/#\\~/$HOME}" 2>/dev/null | cut -f 1)
}
complete -F _twitter_pipeline_completion twitter-pipeline
"""

_ZSH = """\
#compdef twitter-pipeline
_twitter_pipeline_completion() {
    local -a plain described
    local kind value about
    while IFS= read -r kind && IFS= read -r value && IFS= read -r about; do
        case $kind in
            file) _path_files -f ;;
            dir) _path_files -/ ;;
            plain) if [[ $about == _ ]]; then plain+=("$value"); else described+=("$value:$about"); fi ;;
        esac
    done < <(COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT - 1)) _TWITTER_PIPELINE_COMPLETE=zsh_complete \\
        "${words[1]/#\\~/$HOME}" 2>/dev/null)
    (( $#described )) && _describe -V unsorted described
    (( $#plain )) && compadd -V unsorted -a plain
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _twitter_pipeline_completion "$@"
else
    compdef _twitter_pipeline_completion twitter-pipeline
fi
"""

_FISH = """\
function _twitter_pipeline_completion
    set -l program (commandline -opc)[1]
    set -l words (commandline -cp)
    set -l word (commandline -ct)
    for found in (COMP_WORDS=$words COMP_CWORD=$word _TWITTER_PIPELINE_COMPLETE=fish_complete $program 2>/dev/null)
        set -l parts (string split -m 1 , -- $found)
        switch $parts[1]
            case file
                __fish_complete_path $word
            case dir
                __fish_complete_directories $word
            case plain
                echo $parts[2]
        end
    end
end
complete --no-files --command twitter-pipeline --arguments '(_twitter_pipeline_completion)'
"""

SCRIPTS: Mapping[str, str] = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}

INSTALL: Mapping[str, str] = {
    "bash": 'Put this line into ~/.bashrc and open a new terminal:\n  eval "$({program} completion bash)"',
    "zsh": 'Put this line into ~/.zshrc after compinit, and open a new terminal:\n  eval "$({program} completion zsh)"',
    "fish": "Run this once:\n  {program} completion fish > ~/.config/fish/completions/twitter-pipeline.fish",
}
"""How each is installed; `{program}` is where the program lies."""
