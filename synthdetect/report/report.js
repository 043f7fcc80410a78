// MLflow's UI shows the page in a sandboxed frame, in which links to places within it go nowhere.
// There this follows them; elsewhere the browser does, and nothing else of the page needs a script.
if (window !== window.top) {
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (!link) return;
    event.preventDefault();
    const place = document.getElementById(link.hash.slice(1));
    place.focus();
    place.scrollIntoView();
  });
}
