const form = document.querySelector("#filter");
if (form) {
  const page = 30;
  const more = document.querySelector("#more");
  const articles = [...document.querySelectorAll("article")];
  const texts = articles.map((article) => article.textContent.toLowerCase());
  let limit = page;
  const apply = () => {
    const chosen = Object.fromEntries(new FormData(form));
    let found = 0;
    articles.forEach((article, i) => {
      const fits = ["split", "names", "decoding", "kind"].every((k) => !chosen[k] || article.dataset[k] === chosen[k])
        && texts[i].includes(chosen.text.toLowerCase());
      found += fits;
      article.hidden = !fits || found > limit;
    });
    more.hidden = found <= limit;
    form.querySelector("output").textContent = `${Math.min(found, limit)} of ${found}`;
  };
  form.addEventListener("input", () => { limit = page; apply(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => { limit += page; apply(); });
  form.hidden = false;
  apply();
}
