"""The one script of the live page: it fetches the page again and puts the new sections in place of the old ones."""

SCRIPT = """
(() => {
  const state = document.getElementById('state'), pause = document.getElementById('pause');
  let paused = false;
  pause.hidden = false;
  pause.onclick = () => {
    paused = !paused;
    pause.textContent = paused ? 'Go on' : 'Pause';
  };
  const put = (old, fresh) => {
    if (old.contains(document.activeElement)) return;
    const open = [...old.querySelectorAll('details')].map((each) => each.open);
    fresh.querySelectorAll('details').forEach((each, place) => { each.open = open[place] || false; });
    old.replaceWith(document.adoptNode(fresh));
  };
  const look = async () => {
    if (!paused && !document.hidden) {
      try {
        const answer = await fetch(location.pathname, {cache: 'no-store'});
        if (!answer.ok) throw new Error();
        const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
        for (const fresh of [...page.querySelectorAll('main > section')]) {
          const old = document.querySelector(`main > section[aria-labelledby="${fresh.getAttribute('aria-labelledby')}"]`);
          if (old) put(old, fresh);
        }
      } catch {
        state.textContent = 'This has ended, or cannot be reached any more. These are the last figures.';
        pause.hidden = true;
        return;
      }
    }
    setTimeout(look, 2000);
  };
  setTimeout(look, 2000);
})();
"""
