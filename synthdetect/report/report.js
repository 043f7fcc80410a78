// MLflow's UI shows the page in a sandboxed frame, where links within the page do not work.
// This script follows them there. Elsewhere the browser does, and the page needs no script.
if (window !== window.top) {
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (!link) return;
    event.preventDefault();
    const target = document.getElementById(link.hash.slice(1));
    target.focus();
    target.scrollIntoView();
  });
}
